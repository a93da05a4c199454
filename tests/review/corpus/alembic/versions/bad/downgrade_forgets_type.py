"""The way back forgets the enum's type."""

# expect: downgrade-incomplete error, upgrade-not-repeatable error

import sqlalchemy as sa
from alembic import op

revision = "downgrade_forgets_type"
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
