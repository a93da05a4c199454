"""Customers with orders stay."""

# expect: adding-foreign-key-constraint error, foreign-key-action-changed warning

from alembic import op

revision = "foreign_key_replaced"
down_revision = "shop"


def upgrade() -> None:
    op.drop_constraint("fk_orders_customer_id_customers", "orders")
    op.create_foreign_key(
        "fk_orders_customer_id_customers", "orders", "customers", ["customer_id"], ["id"], ondelete="RESTRICT"
    )


def downgrade() -> None:
    op.drop_constraint("fk_orders_customer_id_customers", "orders")
    op.create_foreign_key(
        "fk_orders_customer_id_customers", "orders", "customers", ["customer_id"], ["id"], ondelete="CASCADE"
    )
