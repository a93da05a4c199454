"""Nobody checks the customers of orders."""

# expect: trigger-dropped warning

from alembic import op

revision = "foreign_key_not_enforced"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ALTER CONSTRAINT fk_orders_customer_id_customers NOT ENFORCED")


def downgrade() -> None:
    key = "FOREIGN KEY (customer_id) REFERENCES customers ON DELETE CASCADE NOT VALID"
    op.execute("ALTER TABLE orders DROP CONSTRAINT fk_orders_customer_id_customers")
    op.execute(f"ALTER TABLE orders ADD CONSTRAINT fk_orders_customer_id_customers {key}")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE orders VALIDATE CONSTRAINT fk_orders_customer_id_customers")
