"""Changes are noted in replicas, too."""

from alembic import op

revision = "trigger_in_replicas_too"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("ALTER TABLE products ENABLE ALWAYS TRIGGER noted")


def downgrade() -> None:
    op.execute("ALTER TABLE products ENABLE TRIGGER noted")
