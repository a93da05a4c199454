"""Open orders have a note."""

from alembic import op

revision = "view_replaced"
down_revision = "shop"


def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS SELECT id, customer_id, total, note FROM orders WHERE state = 'open'"
    )


def downgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
