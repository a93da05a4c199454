"""Shipped is sent."""

# expect: enum-value-renamed error

from alembic import op

revision = "enum_renamed"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TYPE order_state RENAME VALUE 'shipped' TO 'sent'")


def downgrade() -> None:
    op.execute("ALTER TYPE order_state RENAME VALUE 'sent' TO 'shipped'")
