"""Names in lower case."""

# expect: scan-while-locked error

import sqlalchemy as sa
from alembic import op

revision = "backfill_with_column"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("customers", sa.Column("name_lower", sa.Text()))
    op.execute("UPDATE customers SET name_lower = lower(name)")


def downgrade() -> None:
    op.drop_column("customers", "name_lower")
