"""The way back is refused."""

# expect: downgrade-fails error

import sqlalchemy as sa
from alembic import op

revision = "downgrade_refuses"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))


def downgrade() -> None:
    raise NotImplementedError
