"""Products become goods, and nobody can write to the old name."""

# expect: renaming-table error

from alembic import op

revision = "table_behind_read_only_view"
down_revision = "shop"


def upgrade() -> None:
    op.rename_table("products", "goods")
    op.execute("CREATE VIEW products AS SELECT DISTINCT * FROM goods")


def downgrade() -> None:
    op.execute("DROP VIEW products")
    op.rename_table("goods", "products")
