"""Open orders have their number as text."""

# expect: result-type-changed warning

from alembic import op

revision = "view_column_type"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("CREATE VIEW open_orders AS SELECT id::text AS id, customer_id, total FROM orders WHERE state = 'open'")


def downgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
