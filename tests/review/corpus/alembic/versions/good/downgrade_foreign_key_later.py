"""Orders without a customer; the downgrade deletes these, and checks the others when nobody waits."""

from alembic import op

revision = "downgrade_foreign_key_later"
down_revision = "shop"


def upgrade() -> None:
    op.drop_constraint("fk_orders_customer_id_customers", "orders")


def downgrade() -> None:
    op.execute("DELETE FROM orders WHERE NOT EXISTS (SELECT FROM customers WHERE customers.id = customer_id)")
    op.create_foreign_key(
        "fk_orders_customer_id_customers",
        "orders",
        "customers",
        ["customer_id"],
        ["id"],
        ondelete="CASCADE",
        postgresql_not_valid=True,
    )
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE orders VALIDATE CONSTRAINT fk_orders_customer_id_customers")
