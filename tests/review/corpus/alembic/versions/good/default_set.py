"""Notes are empty unless said."""

from alembic import op

revision = "default_set"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("orders", "note", server_default="")


def downgrade() -> None:
    op.alter_column("orders", "note", server_default=None)
