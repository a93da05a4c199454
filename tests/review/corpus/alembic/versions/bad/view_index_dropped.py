"""The totals lose their index."""

# expect: materialized-view-without-unique-index warning

from alembic import op

revision = "view_index_dropped"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("DROP INDEX ux_totals")


def downgrade() -> None:
    op.execute("CREATE UNIQUE INDEX ux_totals ON totals (customer_id)")
