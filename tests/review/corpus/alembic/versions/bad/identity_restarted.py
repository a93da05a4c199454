"""Orders are counted anew."""

# expect: sequence-behind-rows error

from alembic import op

revision = "identity_restarted"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ALTER COLUMN id RESTART WITH 1")


def downgrade() -> None:
    op.execute("SELECT setval(pg_get_serial_sequence('orders', 'id'), (SELECT max(id) FROM orders))")
