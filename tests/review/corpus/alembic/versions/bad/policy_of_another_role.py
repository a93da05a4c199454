"""Only one role sees items."""

# expect: rows-not-shown warning

from alembic import op

revision = "policy_of_another_role"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("ALTER POLICY everything ON items TO pg_monitor")


def downgrade() -> None:
    op.execute("ALTER POLICY everything ON items TO public")
