"""A channel of orders, within ten minutes."""

# expect: lock-timeout-off error

import sqlalchemy as sa
from alembic import op

revision = "lock_timeout_of_minutes"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SELECT set_config('lock_timeout', '10min', true)")
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
