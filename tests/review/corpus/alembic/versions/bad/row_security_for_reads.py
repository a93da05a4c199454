"""Everybody sees orders, and nobody makes any."""

# expect: row-security-without-policy error

from alembic import op

revision = "row_security_for_reads"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE POLICY reads ON orders FOR SELECT USING (true)")
    op.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DISABLE ROW LEVEL SECURITY")
    op.execute("DROP POLICY reads ON orders")
