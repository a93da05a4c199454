"""No order for less than nothing."""

# expect: constraint-missing-not-valid error

from alembic import op

revision = "check"
down_revision = "shop"


def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "total > -100000000")


def downgrade() -> None:
    op.drop_constraint("ck_orders_total", "orders")
