"""Orders without a currency; the downgrade looks for them all."""

# expect: adding-not-nullable-field warning, downgrade-depends-on-data warning

from alembic import op

revision = "downgrade_not_null"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("orders", "currency", nullable=True)


def downgrade() -> None:
    op.alter_column("orders", "currency", nullable=False)
