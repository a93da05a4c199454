"""Notes, in batches."""

import sqlalchemy as sa
from alembic import op

revision = "backfill_in_batches"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        batch = sa.text(
            "UPDATE orders SET note = note WHERE id IN (SELECT id FROM orders WHERE id > :last ORDER BY id LIMIT 100)"
        )
        for last in range(0, 2000, 100):
            op.execute(batch.bindparams(last=last))


def downgrade() -> None:
    pass
