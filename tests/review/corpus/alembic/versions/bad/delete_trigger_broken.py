"""What is deleted is noted in a table that is not there."""

# expect: writes-fail error

from alembic import op

revision = "delete_trigger_broken"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO parcels_gone VALUES (OLD.id); RETURN OLD; END $$
    """)
    op.execute("CREATE TRIGGER noted_gone AFTER DELETE ON parcels FOR EACH ROW EXECUTE FUNCTION gone()")


def downgrade() -> None:
    op.execute("DROP TRIGGER noted_gone ON parcels")
    op.execute("DROP FUNCTION gone")
