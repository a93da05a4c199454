"""The index of items by order has the product, too."""

from alembic import op

revision = "foreign_key_index_replaced"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_items_order_id_product_id",
            "items",
            ["order_id", "product_id"],
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        op.drop_index("ix_items_order_id", table_name="items", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index("ix_items_order_id", "items", ["order_id"], postgresql_concurrently=True, if_not_exists=True)
        op.drop_index("ix_items_order_id_product_id", table_name="items", postgresql_concurrently=True, if_exists=True)
