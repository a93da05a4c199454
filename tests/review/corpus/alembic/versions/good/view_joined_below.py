"""Open orders of customers that are still there, and still written."""

from alembic import op

revision = "view_joined_below"
down_revision = "shop"


def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS SELECT id, customer_id, total"
        " FROM orders WHERE state = 'open' AND EXISTS (SELECT FROM customers c WHERE c.id = customer_id)"
    )


def downgrade() -> None:
    op.execute("CREATE OR REPLACE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
