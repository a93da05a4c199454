"""A channel of orders, and then a look at the items."""

import sqlalchemy as sa
from alembic import op

revision = "locked_then_committed"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()), if_not_exists=True)
    with op.get_context().autocommit_block():
        op.execute("SELECT count(*) FROM items WHERE quantity > 3")


def downgrade() -> None:
    op.drop_column("orders", "channel")
