"""Nobody looks at this."""

# expect: ban-drop-view error

from alembic import op

revision = "view_dropped"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DROP VIEW open_orders")


def downgrade() -> None:
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
