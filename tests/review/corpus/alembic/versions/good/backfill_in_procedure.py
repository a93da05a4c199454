"""Notes, in batches of a procedure that commits each."""

from alembic import op

revision = "backfill_in_procedure"
down_revision = "shop"

PROCEDURE = """
    CREATE OR REPLACE PROCEDURE note_all() LANGUAGE plpgsql AS $$
        DECLARE done bigint := 0; last bigint;
        BEGIN
            LOOP
                SELECT max(id) INTO last FROM (SELECT id FROM orders WHERE id > done ORDER BY id LIMIT 100) AS batch;
                EXIT WHEN last IS NULL;
                UPDATE orders SET note = note WHERE id > done AND id <= last;
                COMMIT;
                done := last;
            END LOOP;
        END $$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(PROCEDURE)
        op.execute("CALL note_all()")
        op.execute("DROP PROCEDURE IF EXISTS note_all")


def downgrade() -> None:
    pass
