"""The day of each order, in the zone of whoever migrates."""

# expect: time-zone-assumed warning, scan-while-locked error

from alembic import op

revision = "day_of_session"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN placed_on date")
    op.execute("UPDATE orders SET placed_on = placed_at::date")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP COLUMN placed_on")
