"""Open orders without their customer."""

# expect: view-column-dropped error

from alembic import op

revision = "view_column_dropped"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("CREATE VIEW open_orders AS SELECT id, total FROM orders WHERE state = 'open'")


def downgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
