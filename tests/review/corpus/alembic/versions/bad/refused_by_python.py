"""Nicknames are numbers, as the code believes."""

# expect: upgrade-depends-on-data warning

import sqlalchemy as sa
from alembic import op

revision = "refused_by_python"
down_revision = "shop"


def upgrade() -> None:
    for nickname in op.get_bind().execute(sa.text("SELECT nickname FROM customers ORDER BY id LIMIT 9")).scalars():
        int(nickname or "0")


def downgrade() -> None:
    op.execute("SELECT 1")
