"""Orders have a shop."""

import sqlalchemy as sa
from alembic import op

revision = "add_column"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "shop")
