"""Begin anew."""

# expect: ban-truncate-cascade error, rows-lost error

from alembic import op

revision = "truncate_cascade"
down_revision = "shop"


def upgrade() -> None:
    op.execute("TRUNCATE orders CASCADE")


def downgrade() -> None:
    op.execute("SELECT 1")
