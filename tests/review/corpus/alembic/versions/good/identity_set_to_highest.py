"""Orders are counted on from the highest."""

from alembic import op

revision = "identity_set_to_highest"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SELECT setval(pg_get_serial_sequence('orders', 'id'), (SELECT max(id) FROM orders))")


def downgrade() -> None:
    op.execute("SELECT 1")
