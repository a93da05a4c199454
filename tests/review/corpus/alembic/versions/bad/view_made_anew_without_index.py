"""The totals count the orders, and lose their index."""

# expect: lock-held-during-other-work error, materialized-view-without-unique-index warning

from alembic import op

revision = "view_made_anew_without_index"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("DROP MATERIALIZED VIEW totals")
    op.execute(
        "CREATE MATERIALIZED VIEW totals AS SELECT customer_id, sum(total) AS total, count(*) FROM orders GROUP BY 1"
    )


def downgrade() -> None:
    op.execute("DROP MATERIALIZED VIEW totals")
    op.execute("CREATE MATERIALIZED VIEW totals AS SELECT customer_id, sum(total) AS total FROM orders GROUP BY 1")
    op.execute("CREATE UNIQUE INDEX ux_totals ON totals (customer_id)")
