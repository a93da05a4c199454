"""Steps of robots are steps no longer."""

# expect: rows-hidden warning

from alembic import op

revision = "child_without_parent"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("ALTER TABLE steps_of_robots NO INHERIT steps")


def downgrade() -> None:
    op.execute("ALTER TABLE steps_of_robots INHERIT steps")
