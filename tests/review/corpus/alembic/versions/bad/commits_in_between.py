"""A column, a row's value, and an index: what a stopped run has done of it is not skipped, because rows changed."""

# expect: prefer-robust-stmts warning

import sqlalchemy as sa
from alembic import op

revision = "commits_in_between"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))
    op.execute("UPDATE orders SET shop = 'main' WHERE id = 7")
    with op.get_context().autocommit_block():
        op.create_index("ix_orders_shop", "orders", ["shop"], postgresql_concurrently=True)


def downgrade() -> None:
    op.drop_column("orders", "shop")
