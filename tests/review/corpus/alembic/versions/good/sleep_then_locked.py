"""A channel of orders, some time later."""

import sqlalchemy as sa
from alembic import op

revision = "sleep_then_locked"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SELECT pg_sleep(0.3)")
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
