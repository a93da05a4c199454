"""A channel of orders, with the server's own timeout, which is none."""

# expect: lock-timeout-off error

import sqlalchemy as sa
from alembic import op

revision = "lock_timeout_reset"
down_revision = "shop"


def upgrade() -> None:
    op.execute("RESET lock_timeout")
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
