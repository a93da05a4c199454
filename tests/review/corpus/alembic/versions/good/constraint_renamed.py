"""A shorter name."""

from alembic import op

revision = "constraint_renamed"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders RENAME CONSTRAINT fk_orders_customer_id_customers TO fk_orders_customer")


def downgrade() -> None:
    op.execute("ALTER TABLE orders RENAME CONSTRAINT fk_orders_customer TO fk_orders_customer_id_customers")
