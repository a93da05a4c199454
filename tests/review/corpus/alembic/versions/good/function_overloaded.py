"""An order's total, also for a text."""

from alembic import op

revision = "function_overloaded"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE FUNCTION order_total(text) RETURNS numeric LANGUAGE sql AS 'SELECT order_total($1::bigint)'")


def downgrade() -> None:
    op.execute("DROP FUNCTION order_total(text)")
