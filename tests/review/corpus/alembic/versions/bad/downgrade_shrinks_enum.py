"""Orders can be lost; the downgrade cannot take one that is."""

# expect: changing-column-type warning, downgrade-depends-on-data warning

from alembic import op

revision = "downgrade_shrinks_enum"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TYPE order_state ADD VALUE IF NOT EXISTS 'lost'")


def downgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("ALTER TYPE order_state RENAME TO order_state_old")
    op.execute("CREATE TYPE order_state AS ENUM ('open', 'paid', 'shipped')")
    op.alter_column("orders", "state", server_default=None)
    op.execute("ALTER TABLE orders ALTER COLUMN state TYPE order_state USING state::text::order_state")
    op.alter_column("orders", "state", server_default="open")
    op.execute("DROP TYPE order_state_old")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
