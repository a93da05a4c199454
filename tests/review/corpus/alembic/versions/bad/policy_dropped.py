"""The policy of items goes."""

# expect: row-security-without-policy error

from alembic import op

revision = "policy_dropped"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("DROP POLICY everything ON items")


def downgrade() -> None:
    op.execute("CREATE POLICY everything ON items USING (true)")
