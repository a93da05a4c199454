"""A channel of orders, within two seconds."""

import sqlalchemy as sa
from alembic import op

revision = "lock_timeout_short"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
