"""The function for an order's total gets a schema."""

# expect: ban-drop-function error

from alembic import op

revision = "function_moved"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE SCHEMA totals_of")
    op.execute("ALTER FUNCTION order_total(bigint) SET SCHEMA totals_of")


def downgrade() -> None:
    op.execute("ALTER FUNCTION totals_of.order_total(bigint) SET SCHEMA public")
    op.execute("DROP SCHEMA totals_of")
