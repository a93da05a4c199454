"""An index that there is already."""

# expect: duplicate-index warning

from alembic import op

revision = "index_twice"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index("ix_products_by_name", "products", ["name"], postgresql_concurrently=True, if_not_exists=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_products_by_name", "products", postgresql_concurrently=True, if_exists=True)
