"""Parcels may be lost, and are sent ones before that."""

from alembic import op

revision = "narrows_check_after_rows"
down_revision = "shop_checks"


def upgrade() -> None:
    op.execute("ALTER TABLE parcels DROP CONSTRAINT ck_parcels_state")
    op.execute(
        "ALTER TABLE parcels ADD CONSTRAINT ck_parcels_state CHECK (state IN ('packed', 'sent', 'lost')) NOT VALID"
    )


def downgrade() -> None:
    op.execute("UPDATE parcels SET state = 'sent' WHERE state = 'lost'")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE parcels DROP CONSTRAINT ck_parcels_state")
        op.execute("ALTER TABLE parcels ADD CONSTRAINT ck_parcels_state CHECK (state IN ('packed', 'sent')) NOT VALID")
        op.execute("ALTER TABLE parcels VALIDATE CONSTRAINT ck_parcels_state")
