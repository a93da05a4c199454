"""A channel of orders, and a look at one item."""

import sqlalchemy as sa
from alembic import op

revision = "locked_then_read_by_key"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.execute("SELECT quantity FROM items WHERE id = 7")


def downgrade() -> None:
    op.drop_column("orders", "channel")
