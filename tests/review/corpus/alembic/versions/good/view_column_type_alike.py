"""Totals of open orders have more places."""

from alembic import op

revision = "view_column_type_alike"
down_revision = "shop"


# -- reviewed: view-not-writable no release writes totals through it
def upgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute(
        "CREATE VIEW open_orders AS SELECT id, customer_id, total::numeric(14, 4) AS total"
        " FROM orders WHERE state = 'open'"
    )


def downgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
