"""Items point to products."""

# expect: adding-foreign-key-constraint error, upgrade-depends-on-data warning

from alembic import op

revision = "foreign_key"
down_revision = "shop"


def upgrade() -> None:
    op.create_foreign_key("fk_items_product_id", "items", "products", ["product_id"], ["id"])


def downgrade() -> None:
    op.drop_constraint("fk_items_product_id", "items")
