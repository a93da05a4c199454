"""Parcels without weight."""

# expect: constraint-missing-not-valid warning, downgrade-depends-on-data warning

from alembic import op

revision = "downgrade_check_back"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("ALTER TABLE parcels DROP CONSTRAINT ck_parcels_weight")


def downgrade() -> None:
    op.execute("ALTER TABLE parcels ADD CONSTRAINT ck_parcels_weight CHECK (weight > 0)")
