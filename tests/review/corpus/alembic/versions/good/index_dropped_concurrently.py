"""Nobody looks for names any more."""

from alembic import op

revision = "index_dropped_concurrently"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_products_name", "products", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index("ix_products_name", "products", ["name"], postgresql_concurrently=True, if_not_exists=True)
