"""Everybody has a nickname."""

from alembic import op

revision = "not_null_by_check"
down_revision = "shop_not_valid"


def upgrade() -> None:
    op.execute("ALTER TABLE customers VALIDATE CONSTRAINT ck_nickname")
    op.alter_column("customers", "nickname", nullable=False)
    op.drop_constraint("ck_nickname", "customers")


def downgrade() -> None:
    op.create_check_constraint("ck_nickname", "customers", "nickname IS NOT NULL", postgresql_not_valid=True)
    op.alter_column("customers", "nickname", nullable=True)
