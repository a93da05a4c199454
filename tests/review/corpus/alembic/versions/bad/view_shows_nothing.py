"""Open orders are those without a total, of which there are none."""

# expect: rows-not-shown warning

from alembic import op

revision = "view_shows_nothing"
down_revision = "shop"


def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS SELECT id, customer_id, total"
        " FROM orders WHERE state = 'open' AND total IS NULL"
    )


def downgrade() -> None:
    op.execute("CREATE OR REPLACE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
