"""Notes each deleted visitor, and returns NEW, which is NULL."""

# expect: writes-fail error

from alembic import op

revision = "delete_lost_by_trigger"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION note_goodbye() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO changes (what) VALUES (OLD.email); RETURN NEW; END $$
    """)
    op.execute("CREATE TRIGGER goodbye BEFORE DELETE ON visitors FOR EACH ROW EXECUTE FUNCTION note_goodbye()")


def downgrade() -> None:
    op.execute("DROP TRIGGER goodbye ON visitors")
    op.execute("DROP FUNCTION note_goodbye")
