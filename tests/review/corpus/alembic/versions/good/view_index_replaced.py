"""The totals get another index."""

from alembic import op

revision = "view_index_replaced"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("CREATE UNIQUE INDEX ux_totals_customer ON totals (customer_id)")
    op.execute("DROP INDEX ux_totals")


def downgrade() -> None:
    op.execute("CREATE UNIQUE INDEX ux_totals ON totals (customer_id)")
    op.execute("DROP INDEX ux_totals_customer")
