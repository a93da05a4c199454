"""One more of each item, row by row."""

# expect: backfill-in-one-transaction warning

import sqlalchemy as sa
from alembic import op

revision = "update_one_by_one"
down_revision = "shop"


def upgrade() -> None:
    bind = op.get_bind()
    for (key,) in bind.execute(sa.text("SELECT id FROM items")).all():
        bind.execute(sa.text("UPDATE items SET quantity = quantity + 1 WHERE id = :key"), {"key": key})


def downgrade() -> None:
    bind = op.get_bind()
    for (key,) in bind.execute(sa.text("SELECT id FROM items")).all():
        bind.execute(sa.text("UPDATE items SET quantity = quantity + -1 WHERE id = :key"), {"key": key})
