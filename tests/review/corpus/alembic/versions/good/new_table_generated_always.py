"""Nobody may number channels."""

import sqlalchemy as sa
from alembic import op

revision = "new_table_generated_always"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "channels",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_channels"),
    )


def downgrade() -> None:
    op.drop_table("channels")
