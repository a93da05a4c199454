"""Orders are replicated."""

from alembic import op

revision = "published_with_key"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE PUBLICATION orders_of_all FOR TABLE orders")


def downgrade() -> None:
    op.execute("DROP PUBLICATION orders_of_all")
