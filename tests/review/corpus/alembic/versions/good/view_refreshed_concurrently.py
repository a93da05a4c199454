"""Computes the totals, and nobody waits."""

from alembic import op

revision = "view_refreshed_concurrently"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY totals")


def downgrade() -> None:
    op.execute("SELECT 1")
