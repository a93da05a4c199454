"""Concurrently, but not outside."""

# expect: ban-concurrent-index-creation-in-transaction error

from alembic import op

revision = "concurrently_in_transaction"
down_revision = "shop"


def upgrade() -> None:
    op.create_index("ix_orders_placed_at", "orders", ["placed_at"], postgresql_concurrently=True)


def downgrade() -> None:
    op.drop_index("ix_orders_placed_at")
