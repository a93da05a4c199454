"""Visits need not survive."""

# expect: table-rewrite error, table-unlogged warning

from alembic import op

revision = "unlogged"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE visits SET UNLOGGED")


def downgrade() -> None:
    op.execute("ALTER TABLE visits SET LOGGED")
