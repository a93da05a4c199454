"""Reports live elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "new_schema"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE SCHEMA reports")
    op.create_table(
        "daily",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("sold", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", name="pk_daily"),
        schema="reports",
    )


def downgrade() -> None:
    op.drop_table("daily", schema="reports")
    op.execute("DROP SCHEMA reports")
