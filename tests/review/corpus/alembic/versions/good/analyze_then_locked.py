"""The statistics of orders, and a column."""

import sqlalchemy as sa
from alembic import op

revision = "analyze_then_locked"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ANALYZE orders")
    op.add_column("customers", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("customers", "channel")
