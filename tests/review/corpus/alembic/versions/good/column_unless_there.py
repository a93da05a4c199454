"""A channel of customers, unless it exists."""

import sqlalchemy as sa
from alembic import op

revision = "column_unless_there"
down_revision = "shop"


def upgrade() -> None:
    columns = sa.inspect(op.get_bind()).get_columns("customers")
    if "channel" not in {column["name"] for column in columns}:
        op.add_column("customers", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("customers", "channel")
