"""Steps go to the part of the log that they belong to."""

from alembic import op

revision = "insert_moved_by_trigger"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO steps_of_robots VALUES (NEW.id, NEW.what); RETURN NULL; END $$
    """)
    op.execute("CREATE TRIGGER moved BEFORE INSERT ON steps FOR EACH ROW EXECUTE FUNCTION move()")


def downgrade() -> None:
    op.execute("DROP TRIGGER moved ON steps")
    op.execute("DROP FUNCTION move")
