"""Both halves in one revision."""

# expect: constraint-missing-not-valid error

from alembic import op

revision = "validate_at_once"
down_revision = "shop"


def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "total > -100000000", postgresql_not_valid=True)
    op.execute("ALTER TABLE orders VALIDATE CONSTRAINT ck_orders_total")


def downgrade() -> None:
    op.drop_constraint("ck_orders_total", "orders")
