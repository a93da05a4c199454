"""The number of orders, beside their totals."""

from alembic import op

revision = "view_beside"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("CREATE MATERIALIZED VIEW counts AS SELECT customer_id, count(*) FROM orders GROUP BY 1")


def downgrade() -> None:
    op.execute("DROP MATERIALIZED VIEW counts")
