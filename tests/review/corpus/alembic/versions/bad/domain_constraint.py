"""Amounts are positive."""

# expect: ban-alter-domain-with-add-constraint error

from alembic import op

revision = "domain_constraint"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER DOMAIN amount ADD CONSTRAINT ck_amount CHECK (value > -100000000)")


def downgrade() -> None:
    op.execute("ALTER DOMAIN amount DROP CONSTRAINT ck_amount")
