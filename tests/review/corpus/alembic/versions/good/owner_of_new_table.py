"""Channels belong to another role."""

import sqlalchemy as sa
from alembic import op

revision = "owner_of_new_table"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "channels",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_channels"),
    )
    op.execute("ALTER TABLE channels OWNER TO pg_monitor")


def downgrade() -> None:
    op.drop_table("channels")
