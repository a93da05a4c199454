"""Two thousand million and no more."""

# expect: prefer-bigint-over-int note

import sqlalchemy as sa
from alembic import op

revision = "key_of_32_bits"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "clicks", sa.Column("id", sa.Integer(), sa.Identity()), sa.PrimaryKeyConstraint("id", name="pk_clicks")
    )


def downgrade() -> None:
    op.drop_table("clicks")
