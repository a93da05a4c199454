"""Visits are vacuumed more often."""

from alembic import op

revision = "autovacuum_tuned"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE visits SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_enabled = on)")


def downgrade() -> None:
    op.execute("ALTER TABLE visits RESET (autovacuum_vacuum_scale_factor, autovacuum_enabled)")
