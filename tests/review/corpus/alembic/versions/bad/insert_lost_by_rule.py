"""Parcels are not needed any more."""

# expect: writes-fail error

from alembic import op

revision = "insert_lost_by_rule"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("CREATE RULE none AS ON INSERT TO parcels DO INSTEAD NOTHING")


def downgrade() -> None:
    op.execute("DROP RULE none ON parcels")
