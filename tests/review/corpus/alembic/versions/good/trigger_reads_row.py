"""Each order looks at its customer."""

from alembic import op

revision = "trigger_reads_row"
down_revision = "shop"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM name FROM customers WHERE id = NEW.customer_id; RETURN NEW; END $$
    """)
    op.execute("CREATE TRIGGER looked BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION look()")


def downgrade() -> None:
    op.execute("DROP TRIGGER looked ON orders")
    op.execute("DROP FUNCTION look")
