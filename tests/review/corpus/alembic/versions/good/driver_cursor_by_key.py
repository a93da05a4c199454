"""Changes one product on the driver's own cursor."""

from alembic import op

revision = "driver_cursor_by_key"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN shop text")
    cursor = op.get_bind().connection.cursor()
    cursor.execute("UPDATE products SET price = price WHERE id = 7")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP COLUMN shop")
