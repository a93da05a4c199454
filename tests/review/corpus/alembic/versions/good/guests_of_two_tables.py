"""Visitors and robots are guests."""

from alembic import op

revision = "guests_of_two_tables"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("CREATE TABLE guests (id uuid CONSTRAINT pk_guests PRIMARY KEY, email text CONSTRAINT uq_guests UNIQUE)")
    op.execute("INSERT INTO guests SELECT id, email FROM visitors UNION ALL SELECT id, email FROM robots")


def downgrade() -> None:
    op.drop_table("guests")
