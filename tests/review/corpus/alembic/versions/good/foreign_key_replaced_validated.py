"""Orders follow the id of their customer, each step in its own transaction."""

from alembic import op

revision = "foreign_key_replaced_validated"
down_revision = "shop"


def upgrade() -> None:
    op.drop_constraint("fk_orders_customer_id_customers", "orders")
    op.create_foreign_key(
        "fk_orders_customer_id_customers",
        "orders",
        "customers",
        ["customer_id"],
        ["id"],
        ondelete="CASCADE",
        onupdate="CASCADE",
        postgresql_not_valid=True,
    )
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE orders VALIDATE CONSTRAINT fk_orders_customer_id_customers")


def downgrade() -> None:
    op.drop_constraint("fk_orders_customer_id_customers", "orders")
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
