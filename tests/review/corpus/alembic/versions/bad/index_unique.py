"""One order for each reference."""

# expect: require-concurrent-index-creation error, upgrade-depends-on-data warning

from alembic import op

revision = "index_unique"
down_revision = "shop"


def upgrade() -> None:
    op.create_index("uq_orders_note", "orders", ["note"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_orders_note")
