"""Open orders, each once."""

# expect: view-not-writable warning

from alembic import op

revision = "view_distinct"
down_revision = "shop"


def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS SELECT DISTINCT id, customer_id, total FROM orders WHERE state = 'open'"
    )


def downgrade() -> None:
    op.execute("CREATE OR REPLACE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
