"""The constraint gets another name."""

from alembic import op

revision = "unique_renamed"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE customers RENAME CONSTRAINT uq_customers_email TO uq_customers_address")


def downgrade() -> None:
    op.execute("ALTER TABLE customers RENAME CONSTRAINT uq_customers_address TO uq_customers_email")
