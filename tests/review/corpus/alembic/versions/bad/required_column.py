"""Every order has a shop."""

# expect: adding-required-field error

import sqlalchemy as sa
from alembic import op

revision = "required_column"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text(), nullable=False))


def downgrade() -> None:
    op.drop_column("orders", "shop")
