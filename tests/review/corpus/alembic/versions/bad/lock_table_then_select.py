"""Locks orders to look at items."""

# expect: lock-held-during-other-work error

from alembic import op

revision = "lock_table_then_select"
down_revision = "shop"


def upgrade() -> None:
    op.execute("LOCK TABLE orders IN SHARE MODE")
    op.execute("SELECT count(*) FROM items WHERE quantity > 3")


def downgrade() -> None:
    op.execute("SELECT 1")
