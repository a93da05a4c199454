"""Index the time of orders."""

# expect: require-concurrent-index-creation error

from alembic import op

revision = "index"
down_revision = "shop"


def upgrade() -> None:
    op.create_index("ix_orders_placed_at", "orders", ["placed_at"])


def downgrade() -> None:
    op.drop_index("ix_orders_placed_at")
