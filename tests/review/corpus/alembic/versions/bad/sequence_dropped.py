"""Tickets are numbered elsewhere."""

# expect: ban-drop-sequence warning

from alembic import op

revision = "sequence_dropped"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DROP SEQUENCE ticket_numbers")


def downgrade() -> None:
    op.execute("CREATE SEQUENCE ticket_numbers")
