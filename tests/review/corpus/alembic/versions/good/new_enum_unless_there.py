"""Moods, unless they exist."""

from alembic import op

revision = "new_enum_unless_there"
down_revision = "shop"


def upgrade() -> None:
    op.execute("""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_type WHERE typname = 'mood') THEN
                CREATE TYPE mood AS ENUM ('sad', 'fine');
            END IF;
        END $$
    """)


def downgrade() -> None:
    op.execute("DROP TYPE mood")
