"""Tidy up the index."""

# expect: require-concurrent-reindex error

from alembic import op

revision = "reindex"
down_revision = "shop"


def upgrade() -> None:
    op.execute("REINDEX TABLE orders")


def downgrade() -> None:
    op.execute("SELECT 1")
