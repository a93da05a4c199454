"""Parcels have sizes."""

import sqlalchemy as sa
from alembic import op

revision = "new_enum"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "parcels",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("size", sa.Enum("small", "large", name="parcel_size"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_parcels"),
    )


def downgrade() -> None:
    op.drop_table("parcels")
    op.execute("DROP TYPE parcel_size")
