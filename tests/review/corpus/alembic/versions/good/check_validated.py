"""No score is less than nothing."""

from alembic import op

revision = "check_validated"
down_revision = "shop_not_valid"


def upgrade() -> None:
    op.execute("ALTER TABLE customers VALIDATE CONSTRAINT ck_score")


def downgrade() -> None:
    op.drop_constraint("ck_score", "customers")
    op.create_check_constraint("ck_score", "customers", "score >= 0", postgresql_not_valid=True)
