"""Open orders with their currency, in the middle."""

from alembic import op

revision = "view_made_anew_wider"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, currency, total FROM orders WHERE state = 'open'")


def downgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
