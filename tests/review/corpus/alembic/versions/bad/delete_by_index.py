"""Items of known orders go."""

# expect: backfill-in-one-transaction warning, rows-lost error

from alembic import op

revision = "delete_by_index"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DELETE FROM items WHERE order_id > 0")


def downgrade() -> None:
    op.execute("SELECT 1")
