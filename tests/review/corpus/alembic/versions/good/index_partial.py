"""Index the open orders."""

import sqlalchemy as sa
from alembic import op

revision = "index_partial"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_orders_open",
            "orders",
            ["placed_at"],
            postgresql_where=sa.text("state = 'open'"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_orders_open", "orders", postgresql_concurrently=True, if_exists=True)
