"""A view that is computed after the revision."""

from alembic import op

revision = "new_view_not_populated"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("CREATE MATERIALIZED VIEW totals_of_shop AS SELECT sum(total) FROM orders WITH NO DATA")


def downgrade() -> None:
    op.execute("DROP MATERIALIZED VIEW totals_of_shop")
