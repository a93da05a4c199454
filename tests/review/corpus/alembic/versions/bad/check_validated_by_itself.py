"""Scores are positive: added at once, and checked by itself, where a failure blocks nobody."""

# expect: upgrade-depends-on-data note

from alembic import op

revision = "check_validated_by_itself"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE customers ADD CONSTRAINT ck_customers_score CHECK (score >= 0) NOT VALID")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE customers VALIDATE CONSTRAINT ck_customers_score")


def downgrade() -> None:
    op.execute("ALTER TABLE customers DROP CONSTRAINT ck_customers_score")
