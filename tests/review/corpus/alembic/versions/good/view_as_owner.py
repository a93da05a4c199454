"""Open orders are read with the rights of the owner, as before."""

from alembic import op

revision = "view_as_owner"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER VIEW open_orders SET (security_invoker = false)")


def downgrade() -> None:
    op.execute("ALTER VIEW open_orders RESET (security_invoker)")
