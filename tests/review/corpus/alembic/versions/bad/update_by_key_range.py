"""One more of each item, found by the key."""

# expect: backfill-in-one-transaction warning

from alembic import op

revision = "update_by_key_range"
down_revision = "shop"


def upgrade() -> None:
    op.execute("UPDATE items SET quantity = quantity + 1 WHERE id BETWEEN 1 AND 1000000000")


def downgrade() -> None:
    op.execute("UPDATE items SET quantity = quantity - 1 WHERE id BETWEEN 1 AND 1000000000")
