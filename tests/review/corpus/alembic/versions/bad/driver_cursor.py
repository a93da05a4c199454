"""Changes all products on the driver's own cursor, after a column of orders."""

# expect: backfill-in-one-transaction warning, lock-held-during-other-work error

from alembic import op

revision = "driver_cursor"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN shop text")
    cursor = op.get_bind().connection.cursor()
    cursor.execute("UPDATE products SET price = price")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP COLUMN shop")
