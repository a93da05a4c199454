"""The way back has a slip in it."""

# expect: downgrade-fails error

import sqlalchemy as sa
from alembic import op

revision = "downgrade_fails"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "shops")
