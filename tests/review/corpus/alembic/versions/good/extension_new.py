"""Names are searched by their parts."""

from alembic import op

revision = "extension_new"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")


def downgrade() -> None:
    op.execute("DROP EXTENSION pg_trgm")
