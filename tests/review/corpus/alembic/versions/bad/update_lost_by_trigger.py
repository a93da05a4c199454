"""A trigger that forgets to return the row."""

# expect: writes-fail error

from alembic import op

revision = "update_lost_by_trigger"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION weigh() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.weight := greatest(NEW.weight, 1); RETURN NULL; END $$
    """)
    op.execute("CREATE TRIGGER weighed BEFORE UPDATE ON parcels FOR EACH ROW EXECUTE FUNCTION weigh()")


def downgrade() -> None:
    op.execute("DROP TRIGGER weighed ON parcels")
    op.execute("DROP FUNCTION weigh")
