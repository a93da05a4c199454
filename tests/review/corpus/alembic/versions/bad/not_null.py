"""Everybody has a nickname."""

# expect: adding-not-nullable-field error, upgrade-depends-on-data warning

from alembic import op

revision = "not_null"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("customers", "nickname", nullable=False)


def downgrade() -> None:
    op.alter_column("customers", "nickname", nullable=True)
