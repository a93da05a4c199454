"""Only the items of no order are visible."""

# expect: rows-not-shown warning

from alembic import op

revision = "policy_shows_nothing"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("ALTER POLICY everything ON items USING (order_id < 0)")


def downgrade() -> None:
    op.execute("ALTER POLICY everything ON items USING (true)")
