"""Each order counts all orders."""

# expect: writes-read-table warning

from alembic import op

revision = "trigger_counts_table"
down_revision = "shop"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION count_orders() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM count(*) FROM orders; RETURN NULL; END $$
    """)
    op.execute("CREATE TRIGGER counted AFTER INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION count_orders()")


def downgrade() -> None:
    op.execute("DROP TRIGGER counted ON orders")
    op.execute("DROP FUNCTION count_orders")
