"""Items point to their order once more."""

# expect: adding-foreign-key-constraint error

from alembic import op

revision = "foreign_key_on_index"
down_revision = "shop"


def upgrade() -> None:
    op.create_foreign_key("fk_items_order", "items", "orders", ["order_id"], ["id"])


def downgrade() -> None:
    op.drop_constraint("fk_items_order", "items")
