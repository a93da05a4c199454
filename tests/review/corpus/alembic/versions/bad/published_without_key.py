"""Visits are replicated, and nothing identifies their rows."""

# expect: writes-fail error

from alembic import op

revision = "published_without_key"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE PUBLICATION visits_of_all FOR TABLE visits")


def downgrade() -> None:
    op.execute("DROP PUBLICATION visits_of_all")
