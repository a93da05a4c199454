"""The index of references is made anew."""

from alembic import op

revision = "unique_made_anew"
down_revision = "shop_not_valid"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq_orders_new ON orders (legacy_ref)")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_orders_legacy_ref")
        op.execute("ALTER INDEX IF EXISTS uq_orders_new RENAME TO uq_orders_legacy_ref")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq_orders_new ON orders (legacy_ref)")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_orders_legacy_ref")
        op.execute("ALTER INDEX IF EXISTS uq_orders_new RENAME TO uq_orders_legacy_ref")
