"""Visits are not vacuumed."""

# expect: autovacuum-disabled warning

from alembic import op

revision = "autovacuum_disabled"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE visits SET (autovacuum_enabled = false)")


def downgrade() -> None:
    op.execute("ALTER TABLE visits RESET (autovacuum_enabled)")
