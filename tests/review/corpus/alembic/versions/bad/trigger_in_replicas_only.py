"""Changes are noted in replicas only."""

# expect: trigger-dropped warning

from alembic import op

revision = "trigger_in_replicas_only"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("ALTER TABLE products ENABLE REPLICA TRIGGER noted")


def downgrade() -> None:
    op.execute("ALTER TABLE products ENABLE TRIGGER noted")
