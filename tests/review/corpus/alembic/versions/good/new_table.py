"""Coupons."""

import sqlalchemy as sa
from alembic import op

revision = "new_table"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "coupons",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("percent", sa.SmallInteger(), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("percent BETWEEN 1 AND 100", name="ck_coupons_percent"),
        sa.UniqueConstraint("code", name="uq_coupons_code"),
        sa.PrimaryKeyConstraint("id", name="pk_coupons"),
    )
    op.create_index("ix_coupons_ends_at", "coupons", ["ends_at"])


def downgrade() -> None:
    op.drop_table("coupons")
