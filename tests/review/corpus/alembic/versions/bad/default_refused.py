"""New parcels are lost, which the check does not know."""

# expect: writes-fail error

from alembic import op

revision = "default_refused"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("ALTER TABLE parcels ALTER COLUMN state SET DEFAULT 'lost'")


def downgrade() -> None:
    op.execute("ALTER TABLE parcels ALTER COLUMN state DROP DEFAULT")
