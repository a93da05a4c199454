"""New parcels are packed."""

from alembic import op

revision = "default_accepted"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("ALTER TABLE parcels ALTER COLUMN state SET DEFAULT 'packed'")


def downgrade() -> None:
    op.execute("ALTER TABLE parcels ALTER COLUMN state DROP DEFAULT")
