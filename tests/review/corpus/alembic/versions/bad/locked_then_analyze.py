"""A column, and the statistics of orders."""

# expect: lock-held-during-other-work error

import sqlalchemy as sa
from alembic import op

revision = "locked_then_analyze"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("customers", sa.Column("channel", sa.Text()))
    op.execute("ANALYZE orders")


def downgrade() -> None:
    op.drop_column("customers", "channel")
