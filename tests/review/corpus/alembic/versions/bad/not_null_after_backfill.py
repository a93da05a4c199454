"""Everybody gets a nickname."""

# expect: adding-not-nullable-field error, backfill-in-one-transaction warning

from alembic import op

revision = "not_null_after_backfill"
down_revision = "shop"


def upgrade() -> None:
    op.execute("UPDATE customers SET nickname = name WHERE nickname IS NULL")
    op.alter_column("customers", "nickname", nullable=False)


def downgrade() -> None:
    op.alter_column("customers", "nickname", nullable=True)
