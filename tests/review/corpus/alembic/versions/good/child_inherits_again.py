"""Steps of robots get their parent back."""

from alembic import op

revision = "child_inherits_again"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("ALTER TABLE steps_of_robots NO INHERIT steps")
    op.execute("ALTER TABLE steps_of_robots INHERIT steps")


def downgrade() -> None:
    op.execute("SELECT 1")
