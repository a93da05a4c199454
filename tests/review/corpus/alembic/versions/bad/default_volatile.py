"""A token for each order."""

# expect: adding-field-with-default error

import sqlalchemy as sa
from alembic import op

revision = "default_volatile"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("token", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False))


def downgrade() -> None:
    op.drop_column("orders", "token")
