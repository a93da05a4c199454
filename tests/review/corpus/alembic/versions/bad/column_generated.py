"""The total in cents."""

# expect: adding-field-with-default error

import sqlalchemy as sa
from alembic import op

revision = "column_generated"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("cents", sa.BigInteger(), sa.Computed("total * 100", persisted=True)))


def downgrade() -> None:
    op.drop_column("orders", "cents")
