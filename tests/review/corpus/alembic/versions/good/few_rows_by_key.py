"""One order by its key."""

from alembic import op

revision = "few_rows_by_key"
down_revision = "shop"


def upgrade() -> None:
    op.execute("UPDATE orders SET note = note WHERE id = 1")


def downgrade() -> None:
    op.execute("SELECT 1")
