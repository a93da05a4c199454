"""Orders can be lost."""

from alembic import op

revision = "enum_value_added"
down_revision = "shop"


def upgrade() -> None:
    # -- reviewed: changing-column-type we do not downgrade while anybody waits
    with op.get_context().autocommit_block():
        op.execute("ALTER TYPE order_state ADD VALUE IF NOT EXISTS 'lost'")


def downgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("ALTER TYPE order_state RENAME TO order_state_old")
    op.execute("CREATE TYPE order_state AS ENUM ('open', 'paid', 'shipped')")
    op.alter_column("orders", "state", server_default=None)
    op.execute(
        "ALTER TABLE orders ALTER COLUMN state TYPE order_state USING replace(state::text, 'lost', 'open')::order_state"
    )
    op.alter_column("orders", "state", server_default="open")
    op.execute("DROP TYPE order_state_old")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
