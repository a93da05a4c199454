"""Orders become purchases, and a role may not use the old name."""

# expect: privilege-revoked error

from alembic import op

revision = "table_behind_closed_view"
down_revision = "shop_report"


def upgrade() -> None:
    op.rename_table("orders", "purchases")
    op.execute("CREATE VIEW orders AS SELECT * FROM purchases")


def downgrade() -> None:
    op.execute("DROP VIEW orders")
    op.rename_table("purchases", "orders")
