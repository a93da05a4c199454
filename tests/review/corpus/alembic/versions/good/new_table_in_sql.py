"""Notes, written in SQL."""

from alembic import op

revision = "new_table_in_sql"
down_revision = "shop"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE notes (
            id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_notes PRIMARY KEY,
            body text NOT NULL
        )
    """)
    op.execute("CREATE INDEX ix_notes_body ON notes USING hash (body)")


def downgrade() -> None:
    op.execute("DROP TABLE notes")
