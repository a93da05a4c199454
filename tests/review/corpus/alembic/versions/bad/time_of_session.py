"""The local time of some orders, by the zone of whoever migrates."""

# expect: time-zone-assumed warning, prefer-timestamp-tz note

from alembic import op

revision = "time_of_session"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN placed_local timestamp")
    op.execute("UPDATE orders SET placed_local = placed_at WHERE id <= 3")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP COLUMN placed_local")
