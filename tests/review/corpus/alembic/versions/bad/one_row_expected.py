"""The score of a customer is the total of the order, if there is one only."""

# expect: upgrade-depends-on-data warning, backfill-in-one-transaction warning, values-changed warning

from alembic import op

revision = "one_row_expected"
down_revision = "shop"


def upgrade() -> None:
    op.execute("UPDATE customers SET score = (SELECT total FROM orders WHERE customer_id = customers.id)")


def downgrade() -> None:
    op.execute("SELECT 1")
