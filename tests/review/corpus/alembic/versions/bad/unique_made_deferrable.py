"""The mail addresses of customers are compared at the end of a transaction."""

# expect: unique-dropped warning

from alembic import op

revision = "unique_made_deferrable"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq_new ON customers (email)")
    op.execute("ALTER TABLE customers DROP CONSTRAINT uq_customers_email")
    op.execute("ALTER TABLE customers ADD CONSTRAINT uq_customers_email UNIQUE USING INDEX uq_new DEFERRABLE")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq_new ON customers (email)")
    op.execute("ALTER TABLE customers DROP CONSTRAINT uq_customers_email")
    op.execute("ALTER TABLE customers ADD CONSTRAINT uq_customers_email UNIQUE USING INDEX uq_new")
