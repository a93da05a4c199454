"""Visits move."""

# expect: ban-set-schema error

from alembic import op

revision = "table_moved"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE SCHEMA statistics")
    op.execute("ALTER TABLE visits SET SCHEMA statistics")


def downgrade() -> None:
    op.execute("ALTER TABLE statistics.visits SET SCHEMA public")
    op.execute("DROP SCHEMA statistics")
