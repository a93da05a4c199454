"""Addresses may be shared."""

# expect: unique-dropped warning, disallowed-unique-constraint warning, downgrade-depends-on-data warning

from alembic import op

revision = "unique_dropped"
down_revision = "shop"


def upgrade() -> None:
    op.drop_constraint("uq_customers_email", "customers")


def downgrade() -> None:
    op.create_unique_constraint("uq_customers_email", "customers", ["email"])
