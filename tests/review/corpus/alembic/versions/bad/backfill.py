"""Addresses in lower case."""

# expect: backfill-in-one-transaction warning, values-changed warning

from alembic import op

revision = "backfill"
down_revision = "shop"


def upgrade() -> None:
    op.execute("UPDATE customers SET name = lower(name) || '!'")


def downgrade() -> None:
    op.execute("SELECT 1")
