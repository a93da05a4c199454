"""Locks orders as a writer does, to look at items."""

from alembic import op

revision = "lock_that_lets_write"
down_revision = "shop"


def upgrade() -> None:
    op.execute("LOCK TABLE orders IN ROW EXCLUSIVE MODE")
    op.execute("SELECT count(*) FROM items WHERE quantity > 3")


def downgrade() -> None:
    op.execute("SELECT 1")
