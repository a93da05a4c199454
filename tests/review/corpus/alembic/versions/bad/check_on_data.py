"""No free order."""

# expect: constraint-missing-not-valid error, upgrade-depends-on-data warning, writes-fail error

from alembic import op

revision = "check_on_data"
down_revision = "shop"


def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "total = 17")


def downgrade() -> None:
    op.drop_constraint("ck_orders_total", "orders")
