"""What the server says sounds like a matter of rows, but no row is looked at."""

# expect: upgrade-fails error

from alembic import op

revision = "fails_without_rows"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SELECT '2026-13-01'::date")


def downgrade() -> None:
    op.execute("SELECT 1")
