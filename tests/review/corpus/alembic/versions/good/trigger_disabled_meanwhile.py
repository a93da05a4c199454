"""One product changes without a note."""

from alembic import op

revision = "trigger_disabled_meanwhile"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("ALTER TABLE products DISABLE TRIGGER noted")
    op.execute("UPDATE products SET weight = weight WHERE id = 1")
    op.execute("ALTER TABLE products ENABLE TRIGGER noted")


def downgrade() -> None:
    op.execute("SELECT 1")
