"""A label that its transaction may not use yet."""

# expect: upgrade-fails error

from alembic import op

revision = "enum_used_at_once"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TYPE order_state ADD VALUE 'lost'")
    op.execute("ALTER TABLE orders ALTER COLUMN state SET DEFAULT 'lost'")


def downgrade() -> None:
    op.execute("SELECT 1")
