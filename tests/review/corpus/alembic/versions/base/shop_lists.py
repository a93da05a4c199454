"""A list of a customer's orders, and names of products that are unique with their prices beside them."""

from alembic import op

revision = "shop_lists"
down_revision = "shop"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION orders_of(bigint) RETURNS TABLE (id bigint, total numeric)
        LANGUAGE sql STABLE AS 'SELECT id, total FROM orders WHERE customer_id = $1'
    """)
    op.execute("CREATE UNIQUE INDEX ux_products_name ON products (name, weight) INCLUDE (price)")


def downgrade() -> None:
    op.execute("DROP INDEX ux_products_name")
    op.execute("DROP FUNCTION orders_of")
