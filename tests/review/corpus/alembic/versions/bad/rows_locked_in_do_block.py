"""Locks all orders in a DO block."""

# expect: rows-locked warning

from alembic import op

revision = "rows_locked_in_do_block"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DO $$ BEGIN PERFORM FROM orders FOR SHARE; END $$")


def downgrade() -> None:
    op.execute("SELECT 1")
