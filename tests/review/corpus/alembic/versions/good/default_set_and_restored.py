"""Products cost one at first."""

from alembic import op

revision = "default_set_and_restored"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("products", "price", server_default="1")


def downgrade() -> None:
    op.alter_column("products", "price", server_default="0")
