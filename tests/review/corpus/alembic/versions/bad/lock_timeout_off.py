"""A channel of orders, however long it takes."""

# expect: lock-timeout-off error

import sqlalchemy as sa
from alembic import op

revision = "lock_timeout_off"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SET lock_timeout = 0")
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
