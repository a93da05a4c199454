"""Orders of the past cannot be changed any more."""

# expect: writes-fail error

from alembic import op

revision = "check_that_no_row_satisfies"
down_revision = "shop"


def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "state IS NULL", postgresql_not_valid=True)


def downgrade() -> None:
    op.drop_constraint("ck_orders_total", "orders")
