"""Orders without a currency, before the column goes."""

from alembic import op

revision = "not_null_dropped"
down_revision = "shop"


def upgrade() -> None:
    # -- reviewed: adding-not-nullable-field we do not downgrade while anybody waits
    # -- reviewed: downgrade-depends-on-data whoever downgrades fills the column first
    op.alter_column("orders", "currency", nullable=True)


def downgrade() -> None:
    op.alter_column("orders", "currency", nullable=False)
