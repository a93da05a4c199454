"""Prices grow."""

import sqlalchemy as sa
from alembic import op

revision = "numeric_wider"
down_revision = "shop"


def upgrade() -> None:
    # -- reviewed: changing-column-type we do not downgrade while anybody waits
    # -- reviewed: downgrade-depends-on-data whoever downgrades cuts the values first
    op.alter_column("products", "price", type_=sa.Numeric(12, 2))


def downgrade() -> None:
    op.alter_column("products", "price", type_=sa.Numeric(10, 2))
