"""The language is unknown unless said."""

from alembic import op

revision = "default_dropped_nullable"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("customers", "language", server_default=None)


def downgrade() -> None:
    op.alter_column("customers", "language", server_default="en")
