"""Gifts are kept beside the items."""

# expect: ban-drop-column error, scan-while-locked warning

import sqlalchemy as sa
from alembic import op

revision = "column_dropped_archived"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE TABLE gifts (item_id bigint CONSTRAINT pk_gifts PRIMARY KEY, message text)")
    op.execute("INSERT INTO gifts SELECT id, gift_message FROM items")
    op.drop_column("items", "gift_message")


def downgrade() -> None:
    op.add_column("items", sa.Column("gift_message", sa.Text()))
    op.execute("UPDATE items SET gift_message = message FROM gifts WHERE item_id = items.id")
    op.drop_table("gifts")
