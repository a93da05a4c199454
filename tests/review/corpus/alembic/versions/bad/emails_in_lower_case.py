"""Addresses in lower case, of which two may be one."""

# expect: upgrade-depends-on-data warning, backfill-in-one-transaction warning

from alembic import op

revision = "emails_in_lower_case"
down_revision = "shop"


def upgrade() -> None:
    op.execute("UPDATE customers SET email = lower(email)")


def downgrade() -> None:
    op.execute("SELECT 1")
