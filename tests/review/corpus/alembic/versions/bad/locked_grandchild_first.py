"""A channel of items and of customers."""

# expect: locks-against-the-order warning

import sqlalchemy as sa
from alembic import op

revision = "locked_grandchild_first"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("items", sa.Column("channel", sa.Text()))
    op.add_column("customers", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("items", "channel")
    op.drop_column("customers", "channel")
