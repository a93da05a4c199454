"""A role can see the items."""

from alembic import op

revision = "granted"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("GRANT SELECT ON items TO pg_monitor")


def downgrade() -> None:
    op.execute("REVOKE SELECT ON items FROM pg_monitor")
