"""One more of a few items, row by row."""

import sqlalchemy as sa
from alembic import op

revision = "update_some_one_by_one"
down_revision = "shop"


def upgrade() -> None:
    bind = op.get_bind()
    for (key,) in bind.execute(sa.text("SELECT id FROM items ORDER BY id LIMIT 5")).all():
        bind.execute(sa.text("UPDATE items SET quantity = quantity + 1 WHERE id = :key"), {"key": key})


def downgrade() -> None:
    bind = op.get_bind()
    for (key,) in bind.execute(sa.text("SELECT id FROM items ORDER BY id LIMIT 5")).all():
        bind.execute(sa.text("UPDATE items SET quantity = quantity + -1 WHERE id = :key"), {"key": key})
