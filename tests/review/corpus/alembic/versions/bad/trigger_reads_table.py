"""Each order looks at all products."""

# expect: writes-read-table warning

from alembic import op

revision = "trigger_reads_table"
down_revision = "shop"


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM max(price) FROM products; RETURN NEW; END $$
    """)
    op.execute("CREATE TRIGGER looked BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION look()")


def downgrade() -> None:
    op.execute("DROP TRIGGER looked ON orders")
    op.execute("DROP FUNCTION look")
