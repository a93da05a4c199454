"""Customers like products."""

import sqlalchemy as sa
from alembic import op

revision = "new_association"
down_revision = "shop"


def upgrade() -> None:
    op.create_table(
        "likes",
        sa.Column("customer_id", sa.BigInteger(), nullable=False),
        sa.Column("product_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name="fk_likes_customer_id_customers"),
        sa.ForeignKeyConstraint(["product_id"], ["products.id"], name="fk_likes_product_id_products"),
        sa.PrimaryKeyConstraint("customer_id", "product_id", name="pk_likes"),
    )
    op.create_index("ix_likes_product_id", "likes", ["product_id"])


def downgrade() -> None:
    op.drop_table("likes")
