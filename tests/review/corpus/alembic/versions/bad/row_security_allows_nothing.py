"""Orders are closed for everybody."""

# expect: row-security-without-policy error

from alembic import op

revision = "row_security_allows_nothing"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE POLICY nobody ON orders USING (false)")
    op.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DISABLE ROW LEVEL SECURITY")
    op.execute("DROP POLICY nobody ON orders")
