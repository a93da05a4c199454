"""Orders are counted on from a number that was right somewhere."""

# expect: sequence-behind-rows error

from alembic import op

revision = "sequence_set_to_number"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SELECT setval(pg_get_serial_sequence('orders', 'id'), 5000)")


def downgrade() -> None:
    op.execute("SELECT 1")
