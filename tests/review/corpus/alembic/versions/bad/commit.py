"""A commit of its own."""

# expect: transaction-nesting error

import sqlalchemy as sa
from alembic import op

revision = "commit"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))
    op.execute("COMMIT")


def downgrade() -> None:
    op.drop_column("orders", "shop")
