"""The way back forgets the index."""

# expect: downgrade-incomplete error

from alembic import op

revision = "downgrade_forgets_index"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_products_name", "products", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    op.execute("SELECT 1")
