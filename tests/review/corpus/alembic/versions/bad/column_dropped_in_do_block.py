"""Squawk does not look into this."""

# expect: ban-drop-column error, values-lost error

import sqlalchemy as sa
from alembic import op

revision = "column_dropped_in_do_block"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DO $$ BEGIN ALTER TABLE items DROP COLUMN gift_message; END $$")


def downgrade() -> None:
    op.add_column("items", sa.Column("gift_message", sa.Text()))
