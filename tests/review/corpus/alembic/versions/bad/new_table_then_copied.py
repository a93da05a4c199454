"""Refunds of orders, from the items."""

# expect: lock-held-during-other-work error

import sqlalchemy as sa
from alembic import op

revision = "new_table_then_copied"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "refunds",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_refunds"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_refunds_order_id_orders"),
    )
    op.create_index("ix_refunds_order_id", "refunds", ["order_id"])
    op.execute("INSERT INTO refunds (order_id) SELECT order_id FROM items")


def downgrade() -> None:
    op.drop_table("refunds")
