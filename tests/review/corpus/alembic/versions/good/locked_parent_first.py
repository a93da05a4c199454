"""A channel of customers and of orders."""

import sqlalchemy as sa
from alembic import op

revision = "locked_parent_first"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("customers", sa.Column("channel", sa.Text()))
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("customers", "channel")
    op.drop_column("orders", "channel")
