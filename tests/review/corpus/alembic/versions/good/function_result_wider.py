"""The list of a customer's orders has their notes, too."""

from alembic import op

revision = "function_result_wider"
down_revision = "shop_lists"


def upgrade() -> None:
    op.execute("DROP FUNCTION orders_of")
    op.execute(
        "CREATE FUNCTION orders_of(bigint) RETURNS TABLE (id bigint, note text, total numeric) LANGUAGE sql STABLE"
        " AS 'SELECT id, note, total FROM orders WHERE customer_id = $1'"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION orders_of")
    op.execute(
        "CREATE FUNCTION orders_of(bigint) RETURNS TABLE (id bigint, total numeric) LANGUAGE sql STABLE"
        " AS 'SELECT id, total FROM orders WHERE customer_id = $1'"
    )
