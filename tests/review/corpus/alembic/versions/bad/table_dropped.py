"""Nobody counts visits."""

# expect: ban-drop-table error, rows-lost error

from alembic import op

revision = "table_dropped"
down_revision = "shop"


def upgrade() -> None:
    op.drop_table("visits")


def downgrade() -> None:
    op.execute("CREATE TABLE visits (visitor text NOT NULL, path text NOT NULL, seen_at timestamptz NOT NULL)")
