"""A role cannot make orders any more."""

# expect: privilege-revoked error

from alembic import op

revision = "revoked"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("REVOKE INSERT ON orders FROM pg_monitor")


def downgrade() -> None:
    op.execute("GRANT INSERT ON orders TO pg_monitor")
