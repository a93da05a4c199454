"""The application knows the currency."""

# expect: ban-drop-default warning

from alembic import op

revision = "default_dropped"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("orders", "currency", server_default=None)


def downgrade() -> None:
    op.alter_column("orders", "currency", server_default="EUR")
