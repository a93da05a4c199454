"""Functions that hash passwords are in their own schema."""

# expect: ban-drop-extension warning

from alembic import op

revision = "extension_moved"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("CREATE SCHEMA hashes")
    op.execute("ALTER EXTENSION pgcrypto SET SCHEMA hashes")


def downgrade() -> None:
    op.execute("ALTER EXTENSION pgcrypto SET SCHEMA public")
    op.execute("DROP SCHEMA hashes")
