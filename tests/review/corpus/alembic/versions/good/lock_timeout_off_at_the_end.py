"""A channel of orders, with no timeout for the rest of the transaction, which does nothing."""

import sqlalchemy as sa
from alembic import op

revision = "lock_timeout_off_at_the_end"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.execute("SET LOCAL lock_timeout = 0")


def downgrade() -> None:
    op.drop_column("orders", "channel")
