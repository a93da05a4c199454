"""A channel of orders and of customers, after an index that commits."""

# expect: locks-against-the-order warning

import sqlalchemy as sa
from alembic import op

revision = "locked_child_after_a_commit"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_orders_placed_at", "orders", ["placed_at"], postgresql_concurrently=True, if_not_exists=True
        )
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.add_column("customers", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("customers", "channel")
    op.drop_column("orders", "channel")
    with op.get_context().autocommit_block():
        op.drop_index("ix_orders_placed_at", postgresql_concurrently=True, if_exists=True)
