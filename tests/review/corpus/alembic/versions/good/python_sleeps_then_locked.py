"""A channel of orders, when Python has waited."""

import time

import sqlalchemy as sa
from alembic import op

revision = "python_sleeps_then_locked"
down_revision = "shop"


def upgrade() -> None:
    time.sleep(1.6)
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
