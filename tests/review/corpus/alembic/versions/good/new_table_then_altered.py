"""What is done to a table that nobody has yet."""

import sqlalchemy as sa
from alembic import op

revision = "new_table_then_altered"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "badges",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_badges"),
    )
    op.add_column("badges", sa.Column("title", sa.Text(), nullable=False))
    op.create_unique_constraint("uq_badges_title", "badges", ["title"])
    op.alter_column("badges", "title", new_column_name="name")


def downgrade() -> None:
    op.drop_table("badges")
