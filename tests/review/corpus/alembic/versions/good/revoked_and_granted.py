"""A role gets its privileges anew."""

from alembic import op

revision = "revoked_and_granted"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("REVOKE ALL ON orders FROM pg_monitor")
    op.execute("GRANT SELECT, INSERT ON orders TO pg_monitor")


def downgrade() -> None:
    op.execute("SELECT 1")
