"""Some notes are days."""

from alembic import op

revision = "text_read_as_date"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN noted_on date")
    op.execute("UPDATE orders SET noted_on = to_date(note, 'DD.MM.YYYY') WHERE id <= 3")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP COLUMN noted_on")
