"""Visits get a key."""

# expect: adding-serial-primary-key-field error

from alembic import op

revision = "primary_key"
down_revision = "shop"


def upgrade() -> None:
    op.execute("ALTER TABLE visits ADD COLUMN id bigserial PRIMARY KEY")


def downgrade() -> None:
    op.drop_column("visits", "id")
