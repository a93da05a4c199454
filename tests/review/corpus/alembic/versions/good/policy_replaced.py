"""The policy of items gets another condition."""

from alembic import op

revision = "policy_replaced"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("DROP POLICY everything ON items")
    op.execute("CREATE POLICY known ON items USING (order_id IS NOT NULL)")


def downgrade() -> None:
    op.execute("DROP POLICY known ON items")
    op.execute("CREATE POLICY everything ON items USING (true)")
