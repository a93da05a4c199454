"""Old visits are not needed."""

# expect: backfill-in-one-transaction warning, rows-lost error

from alembic import op

revision = "rows_deleted"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DELETE FROM visits")


def downgrade() -> None:
    op.execute("SELECT 1")
