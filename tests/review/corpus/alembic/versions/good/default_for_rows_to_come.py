"""Tokens for orders to come."""

import sqlalchemy as sa
from alembic import op

revision = "default_for_rows_to_come"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("token", sa.Uuid()))
    op.alter_column("orders", "token", server_default=sa.text("gen_random_uuid()"))


def downgrade() -> None:
    op.drop_column("orders", "token")
