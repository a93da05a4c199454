"""Customers become clients."""

# expect: renaming-table error

from alembic import op

revision = "table_renamed"
down_revision = "shop"


def upgrade() -> None:
    op.rename_table("customers", "clients")


def downgrade() -> None:
    op.rename_table("clients", "customers")
