"""Nobody sees orders."""

# expect: row-security-without-policy error

from alembic import op

revision = "row_security"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.execute("ALTER TABLE orders DISABLE ROW LEVEL SECURITY")
