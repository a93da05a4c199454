"""Notes, in batches of one transaction: an autocommit block commits a block of statements once."""

# expect: backfill-in-one-transaction warning

from alembic import op

revision = "update_in_block_without_commit"
down_revision = "shop"

BLOCK = """
    DO $$
        DECLARE done bigint := 0; last bigint;
        BEGIN
            LOOP
                SELECT max(id) INTO last FROM (SELECT id FROM orders WHERE id > done ORDER BY id LIMIT 100) AS batch;
                EXIT WHEN last IS NULL;
                UPDATE orders SET note = note WHERE id > done AND id <= last;
                done := last;
            END LOOP;
        END $$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(BLOCK)


def downgrade() -> None:
    pass
