"""A channel of orders, after which replicas get some time."""

# expect: lock-held-during-other-work error

import sqlalchemy as sa
from alembic import op

revision = "locked_then_sleep"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.execute("SELECT pg_sleep(0.3)")


def downgrade() -> None:
    op.drop_column("orders", "channel")
