"""Number the orders."""

# expect: adding-field-with-default error

import sqlalchemy as sa
from alembic import op

revision = "column_identity"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("number", sa.BigInteger(), sa.Identity(), nullable=False))


def downgrade() -> None:
    op.drop_column("orders", "number")
