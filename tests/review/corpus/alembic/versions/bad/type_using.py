"""States as text."""

# expect: changing-column-type error

from alembic import op

revision = "type_using"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("ALTER TABLE orders ALTER COLUMN state DROP DEFAULT, ALTER COLUMN state TYPE text USING state::text")
    op.execute("ALTER TABLE orders ALTER COLUMN state SET DEFAULT 'open'")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")


def downgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("ALTER TABLE orders ALTER COLUMN state DROP DEFAULT")
    op.execute("ALTER TABLE orders ALTER COLUMN state TYPE order_state USING state::order_state")
    op.execute("ALTER TABLE orders ALTER COLUMN state SET DEFAULT 'open'")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
