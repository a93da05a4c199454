"""A channel of orders, after which Python waits."""

# expect: lock-held-during-other-work error

import time

import sqlalchemy as sa
from alembic import op

revision = "locked_then_python_sleeps"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    time.sleep(1.6)


def downgrade() -> None:
    op.drop_column("orders", "channel")
