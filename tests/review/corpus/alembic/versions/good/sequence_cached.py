"""Sessions take ten tickets at once."""

from alembic import op

revision = "sequence_cached"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER SEQUENCE ticket_numbers CACHE 10")


def downgrade() -> None:
    op.execute("ALTER SEQUENCE ticket_numbers CACHE 1")
