"""Orders without a customer; the downgrade checks them all."""

# expect: adding-foreign-key-constraint warning, downgrade-depends-on-data warning

from alembic import op

revision = "downgrade_foreign_key"
down_revision = "shop"


def upgrade() -> None:
    op.drop_constraint("fk_orders_customer_id_customers", "orders")


def downgrade() -> None:
    op.create_foreign_key(
        "fk_orders_customer_id_customers", "orders", "customers", ["customer_id"], ["id"], ondelete="CASCADE"
    )
