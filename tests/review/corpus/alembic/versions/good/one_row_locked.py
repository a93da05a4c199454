"""Locks the orders of one customer that nobody has."""

from alembic import op

revision = "one_row_locked"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SELECT id FROM orders WHERE note = 'of nobody' FOR UPDATE")


def downgrade() -> None:
    op.execute("SELECT 1")
