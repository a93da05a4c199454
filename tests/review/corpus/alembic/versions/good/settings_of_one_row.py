"""The shop opens later."""

from alembic import op

revision = "settings_of_one_row"
down_revision = "shop_settings"


def upgrade() -> None:
    op.execute("UPDATE opening SET hour = hour + 1")
    op.execute("ALTER TABLE opening ADD COLUMN minute integer NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE opening ADD CONSTRAINT ck_minute CHECK (minute < 60)")
    op.execute("UPDATE shown_states SET label = label")


def downgrade() -> None:
    op.execute("ALTER TABLE opening DROP COLUMN minute")
    op.execute("UPDATE opening SET hour = hour - 1")
