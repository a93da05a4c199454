"""Sales by product."""

from alembic import op

revision = "new_view"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE VIEW sales AS SELECT product_id, sum(quantity) AS sold FROM items GROUP BY product_id")


def downgrade() -> None:
    op.execute("DROP VIEW sales")
