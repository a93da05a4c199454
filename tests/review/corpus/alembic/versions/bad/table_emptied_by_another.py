"""Visits begin anew."""

# expect: table-replaced error, table-without-primary-key note

from alembic import op

revision = "table_emptied_by_another"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE visits RENAME TO old_visits")
    op.execute("CREATE TABLE visits (LIKE old_visits INCLUDING ALL)")


def downgrade() -> None:
    op.execute("DROP TABLE visits")
    op.execute("ALTER TABLE old_visits RENAME TO visits")
