"""A column, and after a commit a long query."""

from alembic import op

revision = "locked_then_commit"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN IF NOT EXISTS shop text")
    op.get_bind().commit()
    op.execute("SELECT count(*) FROM items")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP COLUMN shop")
