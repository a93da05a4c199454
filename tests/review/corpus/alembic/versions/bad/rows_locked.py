"""Reads all orders, and locks them until the end."""

# expect: rows-locked warning

from alembic import op

revision = "rows_locked"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SELECT id FROM orders FOR UPDATE")


def downgrade() -> None:
    op.execute("SELECT 1")
