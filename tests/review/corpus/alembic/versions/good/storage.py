"""Room for updates in place."""

from alembic import op

revision = "storage"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders SET (fillfactor = 80)")


def downgrade() -> None:
    op.execute("ALTER TABLE orders RESET (fillfactor)")
