"""There is no way back."""

# expect: downgrade-missing error

import sqlalchemy as sa
from alembic import op

revision = "downgrade_missing"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))
