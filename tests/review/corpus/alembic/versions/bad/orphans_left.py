"""An item of no order."""

# expect: orphans-left error, values-changed warning

from alembic import op

revision = "orphans_left"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SET session_replication_role = replica")
    op.execute("UPDATE items SET order_id = -1 WHERE id = 1")
    op.execute("SET session_replication_role = origin")


def downgrade() -> None:
    op.execute("UPDATE items SET order_id = (SELECT min(id) FROM orders) WHERE id = 1")
