"""Locks orders to alter them."""

import sqlalchemy as sa
from alembic import op

revision = "lock_table_briefly"
down_revision = "shop"


def upgrade() -> None:
    op.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
