"""A channel of orders; without it, a look at the items."""

# expect: lock-held-during-other-work warning

import sqlalchemy as sa
from alembic import op

revision = "downgrade_locked_then_read"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
    op.execute("SELECT count(*) FROM items WHERE quantity > 3")
