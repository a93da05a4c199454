"""Orders belong to another role."""

# expect: owner-changed warning

from alembic import op

revision = "owner_changed"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders OWNER TO pg_monitor")


def downgrade() -> None:
    op.execute("ALTER TABLE orders OWNER TO CURRENT_USER")
