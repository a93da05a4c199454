"""Nothing tells these rows apart."""

# expect: table-without-primary-key note

import sqlalchemy as sa
from alembic import op

revision = "table_without_key"
down_revision = "shop"


def upgrade() -> None:
    op.create_table("clicks", sa.Column("path", sa.Text()))


def downgrade() -> None:
    op.drop_table("clicks")
