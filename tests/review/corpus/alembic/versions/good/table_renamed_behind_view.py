"""Customers become clients, and are still called customers."""

from alembic import op

revision = "table_renamed_behind_view"
down_revision = "shop"


def upgrade() -> None:
    op.rename_table("customers", "clients")
    op.execute("CREATE VIEW customers AS SELECT * FROM clients")


def downgrade() -> None:
    op.execute("DROP VIEW customers")
    op.rename_table("clients", "customers")
