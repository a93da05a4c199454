"""A table that is not there."""

# expect: upgrade-fails error

import sqlalchemy as sa
from alembic import op

revision = "upgrade_fails"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("order", sa.Column("shop", sa.Text()))


def downgrade() -> None:
    op.drop_column("order", "shop")
