"""A table for the time of the revision."""

import sqlalchemy as sa
from alembic import op

revision = "temporary_table"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE TEMPORARY TABLE large ON COMMIT DROP AS SELECT id FROM orders WHERE total > 1000")
    op.add_column("orders", sa.Column("large", sa.Boolean()))


def downgrade() -> None:
    op.drop_column("orders", "large")
