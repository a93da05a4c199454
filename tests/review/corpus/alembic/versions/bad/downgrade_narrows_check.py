"""Parcels may be lost."""

# expect: constraint-missing-not-valid warning, downgrade-depends-on-data warning

from alembic import op

revision = "downgrade_narrows_check"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("ALTER TABLE parcels DROP CONSTRAINT ck_parcels_state")
    op.execute(
        "ALTER TABLE parcels ADD CONSTRAINT ck_parcels_state CHECK (state IN ('packed', 'sent', 'lost')) NOT VALID"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE parcels DROP CONSTRAINT ck_parcels_state")
    op.execute("ALTER TABLE parcels ADD CONSTRAINT ck_parcels_state CHECK (state IN ('packed', 'sent'))")
