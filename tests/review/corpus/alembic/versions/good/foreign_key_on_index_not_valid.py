"""Items point to their order once more, from now on."""

from alembic import op

revision = "foreign_key_on_index_not_valid"
down_revision = "shop"


def upgrade() -> None:
    op.create_foreign_key("fk_items_order", "items", "orders", ["order_id"], ["id"], postgresql_not_valid=True)


def downgrade() -> None:
    op.drop_constraint("fk_items_order", "items")
