"""Nothing is shipped."""

# expect: enum-value-removed error, changing-column-type error, values-changed warning

from alembic import op

revision = "enum_removed"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("ALTER TYPE order_state RENAME TO order_state_old")
    op.execute("CREATE TYPE order_state AS ENUM ('open', 'paid')")
    op.execute(
        "ALTER TABLE orders ALTER COLUMN state DROP DEFAULT, ALTER COLUMN state TYPE order_state"
        " USING replace(state::text, 'shipped', 'paid')::order_state"
    )
    op.execute("ALTER TABLE orders ALTER COLUMN state SET DEFAULT 'open'")
    op.execute("DROP TYPE order_state_old")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")


def downgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("ALTER TYPE order_state RENAME TO order_state_old")
    op.execute("CREATE TYPE order_state AS ENUM ('open', 'paid', 'shipped')")
    op.execute(
        "ALTER TABLE orders ALTER COLUMN state DROP DEFAULT, ALTER COLUMN state TYPE order_state"
        " USING state::text::order_state"
    )
    op.execute("ALTER TABLE orders ALTER COLUMN state SET DEFAULT 'open'")
    op.execute("DROP TYPE order_state_old")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
