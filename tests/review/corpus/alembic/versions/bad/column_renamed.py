"""Nicknames become aliases."""

# expect: renaming-column error

from alembic import op

revision = "column_renamed"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("customers", "nickname", new_column_name="alias")


def downgrade() -> None:
    op.alter_column("customers", "alias", new_column_name="nickname")
