"""The total of an order is text."""

# expect: result-type-changed warning

from alembic import op

revision = "function_result_type"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DROP FUNCTION order_total")
    op.execute(
        "CREATE FUNCTION order_total(bigint) RETURNS text"
        " LANGUAGE sql STABLE AS 'SELECT total::text FROM orders WHERE id = $1'"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION order_total")
    op.execute(
        "CREATE FUNCTION order_total(bigint) RETURNS numeric"
        " LANGUAGE sql STABLE AS 'SELECT total FROM orders WHERE id = $1'"
    )
