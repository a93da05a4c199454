"""Tidy up the index."""

from alembic import op

revision = "reindex_concurrently"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("REINDEX TABLE CONCURRENTLY orders")


def downgrade() -> None:
    op.execute("SELECT 1")
