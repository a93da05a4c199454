"""Orders do not change any more."""

# expect: writes-fail error

from alembic import op

revision = "update_lost_by_rule"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE RULE none AS ON UPDATE TO orders DO INSTEAD NOTHING")


def downgrade() -> None:
    op.execute("DROP RULE none ON orders")
