"""A channel of products and of customers."""

import sqlalchemy as sa
from alembic import op

revision = "locked_strangers"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("products", sa.Column("channel", sa.Text()))
    op.add_column("customers", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("customers", "channel")
    op.drop_column("products", "channel")
