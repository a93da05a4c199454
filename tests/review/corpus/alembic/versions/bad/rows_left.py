"""The products that everybody has."""

# expect: rows-left warning

from alembic import op

revision = "rows_left"
down_revision = "shop"


def upgrade() -> None:
    op.execute("INSERT INTO products (name) VALUES ('Voucher')")


def downgrade() -> None:
    op.execute("SELECT 1")
