"""No database hashes passwords."""

# expect: ban-drop-extension warning

from alembic import op

revision = "extension_dropped"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("DROP EXTENSION pgcrypto")


def downgrade() -> None:
    op.execute("CREATE EXTENSION pgcrypto")
