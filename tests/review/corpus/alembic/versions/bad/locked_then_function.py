"""A channel of orders, and a function that changes all items."""

# expect: lock-held-during-other-work error, backfill-in-one-transaction warning

import sqlalchemy as sa
from alembic import op

revision = "locked_then_function"
down_revision = "shop"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION more() RETURNS void LANGUAGE sql AS
        'UPDATE items SET quantity = quantity WHERE id > 0'
    """)
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.execute("SELECT more()")


def downgrade() -> None:
    op.drop_column("orders", "channel")
    op.execute("DROP FUNCTION more")
