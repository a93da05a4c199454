"""Everybody sees orders."""

from alembic import op

revision = "row_security_with_policy"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE POLICY everything ON orders USING (true)")
    op.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DISABLE ROW LEVEL SECURITY")
    op.execute("DROP POLICY everything ON orders")
