"""A channel of orders, and a service that is asked about sixteen names meanwhile."""

# expect: lock-held-during-other-work error

import time

import sqlalchemy as sa
from alembic import op

revision = "locked_then_many_pauses"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    for _ in range(16):
        op.execute("SELECT 1")
        time.sleep(0.11)


def downgrade() -> None:
    op.drop_column("orders", "channel")
