"""Open orders have their total rounded."""

# expect: view-not-writable warning

from alembic import op

revision = "view_column_computed"
down_revision = "shop"


def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS"
        " SELECT id, customer_id, round(total, 2)::numeric(10, 2) AS total FROM orders WHERE state = 'open'"
    )


def downgrade() -> None:
    op.execute("CREATE OR REPLACE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
