"""The way back forgets the default."""

# expect: downgrade-incomplete error

from alembic import op

revision = "downgrade_forgets_default"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("orders", "note", server_default="")


def downgrade() -> None:
    op.execute("SELECT 1")
