"""Items point to products, all of them."""

from alembic import op

revision = "foreign_key_validated"
down_revision = "shop_not_valid"


def upgrade() -> None:
    op.execute("ALTER TABLE items VALIDATE CONSTRAINT fk_items_product")


def downgrade() -> None:
    op.drop_constraint("fk_items_product", "items")
    op.create_foreign_key("fk_items_product", "items", "products", ["product_id"], ["id"], postgresql_not_valid=True)
