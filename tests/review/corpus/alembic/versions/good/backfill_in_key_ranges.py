"""Notes, in ranges of the key."""

import sqlalchemy as sa
from alembic import op

revision = "backfill_in_key_ranges"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        batch = sa.text("UPDATE orders SET note = note WHERE id > :low AND id <= :high")
        for low in range(0, 2000, 500):
            op.execute(batch.bindparams(low=low, high=low + 500))


def downgrade() -> None:
    op.execute("SELECT 1")
