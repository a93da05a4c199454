"""Computes the totals."""

# expect: refresh-not-concurrent error

from alembic import op

revision = "view_refreshed"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("REFRESH MATERIALIZED VIEW totals")


def downgrade() -> None:
    op.execute("SELECT 1")
