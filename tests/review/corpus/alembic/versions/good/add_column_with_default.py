"""Orders can be urgent."""

import sqlalchemy as sa
from alembic import op

revision = "add_column_with_default"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("urgent", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    op.drop_column("orders", "urgent")
