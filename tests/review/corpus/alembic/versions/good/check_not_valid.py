"""No order for less than nothing, from now on."""

from alembic import op

revision = "check_not_valid"
down_revision = "shop"


def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "total >= 0", postgresql_not_valid=True)


def downgrade() -> None:
    op.drop_constraint("ck_orders_total", "orders")
