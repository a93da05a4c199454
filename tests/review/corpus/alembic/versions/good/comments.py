"""Words for those who look."""

from alembic import op

revision = "comments"
down_revision = "shop"


def upgrade() -> None:
    op.create_table_comment("orders", "What was ordered")
    op.alter_column("orders", "note", comment="What the customer said")


def downgrade() -> None:
    op.drop_table_comment("orders")
    op.alter_column("orders", "note", comment=None, existing_comment="What the customer said")
