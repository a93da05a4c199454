"""Alembic's version table has room for 32 characters."""

# expect: upgrade-fails error

from alembic import op

revision = "an_id_that_the_version_table_does_not_hold"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN gift_note text")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DROP COLUMN gift_note")
