"""Index state and time of orders."""

from alembic import op

revision = "index_of_two"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_orders_state_placed_at",
            "orders",
            ["state", "placed_at"],
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_orders_state_placed_at", "orders", postgresql_concurrently=True, if_exists=True)
