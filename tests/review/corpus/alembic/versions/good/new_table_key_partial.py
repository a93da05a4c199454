"""Refunds of items, some of them."""

import sqlalchemy as sa
from alembic import op

revision = "new_table_key_partial"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "refunds",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("item_id", sa.BigInteger()),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_refunds_item_id_items", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_refunds"),
    )
    op.create_index("ix_refunds_item_id", "refunds", ["item_id"], postgresql_where=sa.text("item_id IS NOT NULL"))


def downgrade() -> None:
    op.drop_table("refunds")
