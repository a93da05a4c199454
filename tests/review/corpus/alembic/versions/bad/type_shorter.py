"""Names are short."""

# expect: changing-column-type error, upgrade-depends-on-data warning

import sqlalchemy as sa
from alembic import op

revision = "type_shorter"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("customers", "name", type_=sa.String(3))


def downgrade() -> None:
    op.alter_column("customers", "name", type_=sa.Text())
