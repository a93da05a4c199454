"""Open orders are read with the rights of who asks."""

# expect: view-rights-changed warning

from alembic import op

revision = "view_as_caller"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER VIEW open_orders SET (security_invoker = true)")


def downgrade() -> None:
    op.execute("ALTER VIEW open_orders RESET (security_invoker)")
