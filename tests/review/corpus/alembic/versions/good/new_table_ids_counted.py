"""Channels with numbers from the sequence."""

import sqlalchemy as sa
from alembic import op

revision = "new_table_ids_counted"
down_revision = "shop"


def upgrade() -> None:
    channels = op.create_table(
        "channels",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_channels"),
    )
    op.bulk_insert(channels, [{"name": "shop"}, {"name": "web"}])


def downgrade() -> None:
    op.drop_table("channels")
