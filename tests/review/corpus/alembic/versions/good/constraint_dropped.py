"""Addresses may be shared."""

from alembic import op

revision = "constraint_dropped"
down_revision = "shop"


def upgrade() -> None:
    op.drop_constraint("uq_customers_email", "customers")


def downgrade() -> None:
    op.create_unique_constraint("uq_customers_email", "customers", ["email"])
