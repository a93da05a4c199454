"""What is deleted is noted."""

from alembic import op

revision = "delete_trigger"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO steps VALUES (OLD.id + 1000000, TG_TABLE_NAME); RETURN OLD; END $$
    """)
    op.execute("CREATE TRIGGER noted_gone AFTER DELETE ON parcels FOR EACH ROW EXECUTE FUNCTION gone()")


def downgrade() -> None:
    op.execute("DROP TRIGGER noted_gone ON parcels")
    op.execute("DROP FUNCTION gone")
