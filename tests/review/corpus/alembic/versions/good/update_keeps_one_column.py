"""A trigger that keeps the order of a parcel."""

from alembic import op

revision = "update_keeps_one_column"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.order_id := OLD.order_id; RETURN NEW; END $$
    """)
    op.execute("CREATE TRIGGER kept BEFORE UPDATE ON parcels FOR EACH ROW EXECUTE FUNCTION keep()")


def downgrade() -> None:
    op.execute("DROP TRIGGER kept ON parcels")
    op.execute("DROP FUNCTION keep")
