"""The index of items by order goes."""

# expect: foreign-key-without-index warning

from alembic import op

revision = "foreign_key_index_dropped"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_items_order_id", table_name="items", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index("ix_items_order_id", "items", ["order_id"], postgresql_concurrently=True, if_not_exists=True)
