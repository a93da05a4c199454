"""The view gets another name."""

# expect: renaming-object error

from alembic import op

revision = "view_renamed"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER VIEW open_orders RENAME TO unpaid_orders")


def downgrade() -> None:
    op.execute("ALTER VIEW unpaid_orders RENAME TO open_orders")
