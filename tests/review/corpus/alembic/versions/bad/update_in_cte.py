"""One more of each item, which a query counts."""

# expect: backfill-in-one-transaction warning

from alembic import op

revision = "update_in_cte"
down_revision = "shop"


def upgrade() -> None:
    op.execute("WITH more AS (UPDATE items SET quantity = quantity + 1 RETURNING id) SELECT count(*) FROM more")


def downgrade() -> None:
    op.execute("UPDATE items SET quantity = quantity - 1 WHERE id > 0")
