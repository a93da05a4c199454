"""The next order has the last number but one."""

# expect: sequence-range-reduced warning

from alembic import op

revision = "sequence_near_its_end"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SELECT setval('orders_id_seq', (SELECT max(id) + 9223372036854770000 FROM orders))")


def downgrade() -> None:
    op.execute("SELECT setval('orders_id_seq', (SELECT max(id) FROM orders))")
