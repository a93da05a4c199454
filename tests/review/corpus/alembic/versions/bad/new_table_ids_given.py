"""Channels with numbers of their own."""

# expect: sequence-behind-rows error

import sqlalchemy as sa
from alembic import op

revision = "new_table_ids_given"
down_revision = "shop"


def upgrade() -> None:
    channels = op.create_table(
        "channels",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_channels"),
    )
    op.bulk_insert(channels, [{"id": 1, "name": "shop"}, {"id": 2, "name": "web"}])


def downgrade() -> None:
    op.drop_table("channels")
