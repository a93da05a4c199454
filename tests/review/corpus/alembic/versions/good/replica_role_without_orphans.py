"""No trigger sees this change."""

from alembic import op

revision = "replica_role_without_orphans"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SET session_replication_role = replica")
    op.execute("UPDATE items SET order_id = order_id WHERE id = 1")
    op.execute("SET session_replication_role = origin")


def downgrade() -> None:
    op.execute("UPDATE items SET order_id = order_id WHERE id = 1")
