"""Looks at the items of a list."""

import sqlalchemy as sa
from alembic import op

revision = "read_by_many_keys"
down_revision = "shop"


def upgrade() -> None:
    op.execute(
        "SELECT quantity FROM items WHERE id IN (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,"
        " 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35)"
    )
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
