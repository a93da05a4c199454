"""A channel of orders, and then one of customers."""

from alembic import op

revision = "locked_one_by_one"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD COLUMN IF NOT EXISTS channel text")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE customers ADD COLUMN IF NOT EXISTS channel text")


def downgrade() -> None:
    op.drop_column("customers", "channel")
    op.drop_column("orders", "channel")
