"""One more of each item, in batches of one transaction."""

# expect: backfill-in-one-transaction warning

import sqlalchemy as sa
from alembic import op

revision = "update_in_batches_without_commit"
down_revision = "shop"


def upgrade() -> None:
    bind = op.get_bind()
    last = 0
    some = sa.text("""
        UPDATE items SET quantity = quantity + 1
        WHERE id IN (SELECT id FROM items WHERE id > :last ORDER BY id LIMIT 5) RETURNING id
    """)
    while keys := bind.execute(some, {"last": last}).scalars().all():
        last = max(keys)


def downgrade() -> None:
    bind = op.get_bind()
    last = 0
    some = sa.text("""
        UPDATE items SET quantity = quantity - 1
        WHERE id IN (SELECT id FROM items WHERE id > :last ORDER BY id LIMIT 5) RETURNING id
    """)
    while keys := bind.execute(some, {"last": last}).scalars().all():
        last = max(keys)
