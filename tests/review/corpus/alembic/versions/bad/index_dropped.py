"""Nobody looks for names any more."""

# expect: require-concurrent-index-deletion note, require-concurrent-index-creation warning

from alembic import op

revision = "index_dropped"
down_revision = "shop"


def upgrade() -> None:
    op.drop_index("ix_products_name", table_name="products")


def downgrade() -> None:
    op.create_index("ix_products_name", "products", ["name"])
