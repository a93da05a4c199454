"""Products do not note changes for some time."""

# expect: trigger-dropped warning

from alembic import op

revision = "trigger_disabled"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("ALTER TABLE products DISABLE TRIGGER noted")


def downgrade() -> None:
    op.execute("ALTER TABLE products ENABLE TRIGGER noted")
