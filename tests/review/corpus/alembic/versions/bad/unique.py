"""Customers are told apart by their time."""

# expect: disallowed-unique-constraint error

from alembic import op

revision = "unique"
down_revision = "shop"


def upgrade() -> None:
    op.create_unique_constraint("uq_customers_email_name", "customers", ["email", "name"])


def downgrade() -> None:
    op.drop_constraint("uq_customers_email_name", "customers")
