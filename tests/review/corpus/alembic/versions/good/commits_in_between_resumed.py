"""A column and its index: a run that was stopped between them goes on where it stopped."""

import sqlalchemy as sa
from alembic import op

revision = "commits_in_between_resumed"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))
    with op.get_context().autocommit_block():
        op.create_index("ix_orders_shop", "orders", ["shop"], postgresql_concurrently=True)


def downgrade() -> None:
    op.drop_column("orders", "shop")
