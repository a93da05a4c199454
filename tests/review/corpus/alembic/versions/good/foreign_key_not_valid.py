"""Items point to products, those to come."""

from alembic import op

revision = "foreign_key_not_valid"
down_revision = "shop"


def upgrade() -> None:
    op.create_foreign_key("fk_items_product_id", "items", "products", ["product_id"], ["id"], postgresql_not_valid=True)


def downgrade() -> None:
    op.drop_constraint("fk_items_product_id", "items")
