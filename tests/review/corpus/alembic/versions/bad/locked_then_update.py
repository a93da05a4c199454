"""A channel of orders, and all weights."""

# expect: lock-held-during-other-work error, backfill-in-one-transaction warning

import sqlalchemy as sa
from alembic import op

revision = "locked_then_update"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.execute("UPDATE products SET weight = weight")


def downgrade() -> None:
    op.drop_column("orders", "channel")
