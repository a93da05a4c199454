"""Items come in larger numbers."""

# expect: changing-column-type error, downgrade-depends-on-data warning

import sqlalchemy as sa
from alembic import op

revision = "type_to_bigint"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("items", "quantity", type_=sa.BigInteger())


def downgrade() -> None:
    op.alter_column("items", "quantity", type_=sa.Integer())
