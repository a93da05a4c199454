"""One more of some items."""

from alembic import op

revision = "update_by_few_keys"
down_revision = "shop"


def upgrade() -> None:
    op.execute("UPDATE items SET quantity = quantity + 1 WHERE id IN (1, 2, 3, 5, 8, 13)")


def downgrade() -> None:
    op.execute("UPDATE items SET quantity = quantity - 1 WHERE id IN (1, 2, 3, 5, 8, 13)")
