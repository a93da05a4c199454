"""An index that squawk does not see."""

# expect: scan-while-locked error

from alembic import op

revision = "index_in_do_block"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DO $$ BEGIN EXECUTE 'CREATE INDEX ix_orders_total ON orders (total)'; END $$")


def downgrade() -> None:
    op.drop_index("ix_orders_total")
