"""Products become goods, and the view for the old name lacks a column."""

# expect: renaming-table error

from alembic import op

revision = "table_behind_narrow_view"
down_revision = "shop"


def upgrade() -> None:
    op.rename_table("products", "goods")
    op.execute("CREATE VIEW products AS SELECT id, name, price FROM goods")


def downgrade() -> None:
    op.execute("DROP VIEW products")
    op.rename_table("goods", "products")
