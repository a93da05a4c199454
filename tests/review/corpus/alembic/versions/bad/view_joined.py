"""Open orders of customers that are still there."""

# expect: view-not-writable warning

from alembic import op

revision = "view_joined"
down_revision = "shop"


def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS SELECT o.id, o.customer_id, o.total"
        " FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.state = 'open'"
    )


def downgrade() -> None:
    op.execute("CREATE OR REPLACE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
