"""No way back was written."""

# expect: downgrade-empty error, upgrade-not-repeatable error

import sqlalchemy as sa
from alembic import op

revision = "downgrade_empty"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))


def downgrade() -> None:
    pass
