"""One order for each customer and number."""

from alembic import op

revision = "index_unique_concurrently"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "uq_orders_customer_id_id",
            "orders",
            ["customer_id", "id"],
            unique=True,
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("uq_orders_customer_id_id", "orders", postgresql_concurrently=True, if_exists=True)
