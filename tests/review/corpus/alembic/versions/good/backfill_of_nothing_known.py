"""Fill in what is missing, in batches."""

import sqlalchemy as sa
from alembic import op

revision = "backfill_of_nothing_known"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        while (
            op.get_bind()
            .execute(
                sa.text(
                    "UPDATE customers SET nickname = name WHERE id IN"
                    " (SELECT id FROM customers WHERE nickname IS NULL ORDER BY id LIMIT 100)"
                )
            )
            .rowcount
        ):
            pass


def downgrade() -> None:
    pass
