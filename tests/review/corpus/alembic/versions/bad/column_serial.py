"""Numbers the visits."""

# expect: adding-field-with-default error

from alembic import op

revision = "column_serial"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE visits ADD COLUMN number serial")


def downgrade() -> None:
    op.execute("ALTER TABLE visits DROP COLUMN number")
