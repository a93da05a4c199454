"""A name by the convention."""

from alembic import op

revision = "index_renamed"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER INDEX ix_products_name RENAME TO ix_products_by_name")


def downgrade() -> None:
    op.execute("ALTER INDEX ix_products_by_name RENAME TO ix_products_name")
