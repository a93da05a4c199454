"""Describes orders, and looks at the items."""

from alembic import op

revision = "commented_then_read"
down_revision = "shop"


def upgrade() -> None:
    op.execute("COMMENT ON TABLE orders IS 'what customers want'")
    op.execute("SELECT count(*) FROM items WHERE quantity > 3")


def downgrade() -> None:
    op.execute("COMMENT ON TABLE orders IS NULL")
