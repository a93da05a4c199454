"""Tickets have four digits."""

# expect: sequence-range-reduced warning

from alembic import op

revision = "sequence_range_reduced"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER SEQUENCE ticket_numbers MAXVALUE 9999")


def downgrade() -> None:
    op.execute("ALTER SEQUENCE ticket_numbers NO MAXVALUE")
