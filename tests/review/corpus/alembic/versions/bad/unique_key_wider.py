"""Names are unique only for one price."""

# expect: unique-dropped warning, downgrade-depends-on-data warning

from alembic import op

revision = "unique_key_wider"
down_revision = "shop_lists"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ux_products_key ON products (name, weight, price)")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ux_products_name")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ux_products_name ON products (name, weight) INCLUDE (price)"
        )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ux_products_key")
