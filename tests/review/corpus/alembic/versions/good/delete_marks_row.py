"""A deleted visitor is marked as deleted instead."""

from alembic import op

revision = "delete_marks_row"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("ALTER TABLE visitors ADD COLUMN gone boolean")
    op.execute("""
        CREATE FUNCTION mark_gone() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN UPDATE visitors SET gone = true WHERE id = OLD.id; RETURN NULL; END $$
    """)
    op.execute("CREATE TRIGGER gone BEFORE DELETE ON visitors FOR EACH ROW EXECUTE FUNCTION mark_gone()")


def downgrade() -> None:
    op.execute("DROP TRIGGER gone ON visitors")
    op.execute("DROP FUNCTION mark_gone")
    op.execute("ALTER TABLE visitors DROP COLUMN gone")
