"""A channel of orders, and a table of channels."""

import sqlalchemy as sa
from alembic import op

revision = "locked_then_new_table"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.create_table(
        "channels", sa.Column("name", sa.Text(), nullable=False), sa.PrimaryKeyConstraint("name", name="pk_channels")
    )
    op.execute("INSERT INTO channels SELECT 'channel ' || n FROM generate_series(1, 500) AS n")
    op.execute("CREATE INDEX ix_channels_lower ON channels (lower(name))")


def downgrade() -> None:
    op.drop_table("channels")
    op.drop_column("orders", "channel")
