"""Totals are computed later."""

# expect: materialized-view-not-populated error, refresh-not-concurrent warning

from alembic import op

revision = "view_not_populated"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("REFRESH MATERIALIZED VIEW totals WITH NO DATA")


def downgrade() -> None:
    op.execute("REFRESH MATERIALIZED VIEW totals")
