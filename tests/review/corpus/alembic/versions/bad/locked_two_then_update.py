"""A channel of products and of orders, which gets a value."""

# expect: scan-while-locked error

import sqlalchemy as sa
from alembic import op

revision = "locked_two_then_update"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("products", sa.Column("channel", sa.Text()))
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.execute("UPDATE orders SET channel = 'shop'")


def downgrade() -> None:
    op.drop_column("orders", "channel")
    op.drop_column("products", "channel")
