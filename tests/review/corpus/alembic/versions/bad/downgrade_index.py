"""Nobody looks for names any more; the downgrade builds the index at once."""

# expect: require-concurrent-index-creation warning

from alembic import op

revision = "downgrade_index"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_products_name", table_name="products", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    op.create_index("ix_products_name", "products", ["name"])
