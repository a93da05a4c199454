"""Telephone numbers are text."""

import sqlalchemy as sa
from alembic import op

revision = "varchar_to_text"
down_revision = "shop"


def upgrade() -> None:
    # -- reviewed: changing-column-type we do not downgrade while anybody waits
    # -- reviewed: downgrade-depends-on-data whoever downgrades cuts the values first
    op.alter_column("customers", "phone", type_=sa.Text())


def downgrade() -> None:
    op.alter_column("customers", "phone", type_=sa.String(50))
