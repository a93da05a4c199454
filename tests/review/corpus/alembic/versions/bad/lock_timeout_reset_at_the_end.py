"""A channel of orders, with no timeout afterwards."""

# expect: lock-timeout-off error

import sqlalchemy as sa
from alembic import op

revision = "lock_timeout_reset_at_the_end"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SET lock_timeout = '2s'")
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.drop_column("orders", "channel")
