"""A channel of orders, and a look at items in a block."""

# expect: lock-held-during-other-work error

import sqlalchemy as sa
from alembic import op

revision = "locked_then_do_block"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.execute("DO $$ BEGIN PERFORM count(*) FROM items WHERE quantity > 3; END $$")


def downgrade() -> None:
    op.drop_column("orders", "channel")
