"""A function."""

from alembic import op

revision = "new_function"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE FUNCTION double(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1'")


def downgrade() -> None:
    op.execute("DROP FUNCTION double")
