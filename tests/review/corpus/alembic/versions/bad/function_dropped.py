"""Nobody calls this."""

# expect: ban-drop-function error

from alembic import op

revision = "function_dropped"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DROP FUNCTION order_total")


def downgrade() -> None:
    op.execute("""
        CREATE FUNCTION order_total(bigint) RETURNS numeric
        LANGUAGE sql STABLE AS 'SELECT total FROM orders WHERE id = $1'
    """)
