"""A trigger that returns the row as it was."""

# expect: writes-fail error

from alembic import op

revision = "update_undone_by_trigger"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RETURN OLD; END $$
    """)
    op.execute("CREATE TRIGGER kept BEFORE UPDATE ON parcels FOR EACH ROW EXECUTE FUNCTION keep()")


def downgrade() -> None:
    op.execute("DROP TRIGGER kept ON parcels")
    op.execute("DROP FUNCTION keep")
