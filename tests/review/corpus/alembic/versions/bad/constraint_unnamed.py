"""A rule without a name."""

# expect: unnamed-constraint note

import sqlalchemy as sa
from alembic import op

revision = "constraint_unnamed"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "coupons",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.UniqueConstraint("code"),
        sa.PrimaryKeyConstraint("id", name="pk_coupons"),
    )


def downgrade() -> None:
    op.drop_table("coupons")
