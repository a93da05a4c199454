"""The function for an order's total is made anew."""

from alembic import op

revision = "function_made_anew"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DROP FUNCTION order_total")
    op.execute(
        "CREATE FUNCTION order_total(bigint) RETURNS numeric"
        " LANGUAGE sql STABLE AS 'SELECT total FROM orders WHERE id = $1'"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION order_total")
    op.execute(
        "CREATE FUNCTION order_total(bigint) RETURNS numeric"
        " LANGUAGE sql STABLE AS 'SELECT total FROM orders WHERE id = $1'"
    )
