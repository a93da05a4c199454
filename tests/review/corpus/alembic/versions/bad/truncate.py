"""Begin counting anew."""

# expect: rows-lost error

from alembic import op

revision = "truncate"
down_revision = "shop"


def upgrade() -> None:
    op.execute("TRUNCATE visits")


def downgrade() -> None:
    op.execute("SELECT 1")
