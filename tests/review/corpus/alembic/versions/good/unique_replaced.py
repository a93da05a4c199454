"""The same addresses are unique under another name."""

from alembic import op

revision = "unique_replaced"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "uq_customers_address",
            "customers",
            ["email"],
            unique=True,
            postgresql_concurrently=True,
            if_not_exists=True,
        )
    op.execute("ALTER TABLE customers DROP CONSTRAINT IF EXISTS uq_customers_email")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "uq_customers_email", "customers", ["email"], unique=True, postgresql_concurrently=True, if_not_exists=True
        )
    op.execute("ALTER TABLE customers ADD CONSTRAINT uq_customers_email UNIQUE USING INDEX uq_customers_email")
    op.drop_index("uq_customers_address")
