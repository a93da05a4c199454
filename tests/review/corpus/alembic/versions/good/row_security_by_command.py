"""A policy of orders for each command."""

from alembic import op

revision = "row_security_by_command"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE POLICY reads ON orders FOR SELECT USING (true)")
    op.execute("CREATE POLICY inserts ON orders FOR INSERT WITH CHECK (true)")
    op.execute("CREATE POLICY updates ON orders FOR UPDATE USING (true)")
    op.execute("CREATE POLICY deletes ON orders FOR DELETE USING (true)")
    op.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DISABLE ROW LEVEL SECURITY")
    for name in ("reads", "inserts", "updates", "deletes"):
        op.execute(f"DROP POLICY {name} ON orders")
