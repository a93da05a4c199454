"""A default that is one value for all rows."""

import sqlalchemy as sa
from alembic import op

revision = "add_column_with_now"
down_revision = "shop"


def upgrade() -> None:
    op.add_column(
        "orders", sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("orders", "changed_at")
