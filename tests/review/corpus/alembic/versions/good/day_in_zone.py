"""The day of some orders, in a zone that is named."""

from alembic import op

revision = "day_in_zone"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN placed_on date")
    op.execute("UPDATE orders SET placed_on = (placed_at AT TIME ZONE 'UTC')::date WHERE id <= 3")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP COLUMN placed_on")
