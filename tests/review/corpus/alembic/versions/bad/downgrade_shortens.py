"""Telephone numbers are text; the downgrade reads them all."""

# expect: changing-column-type warning, downgrade-depends-on-data warning

import sqlalchemy as sa
from alembic import op

revision = "downgrade_shortens"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("customers", "phone", type_=sa.Text())


def downgrade() -> None:
    op.alter_column("customers", "phone", type_=sa.String(50))
