"""Customers have a favourite."""

# expect: require-concurrent-index-creation error, adding-foreign-key-constraint error

import sqlalchemy as sa
from alembic import op

revision = "foreign_key_with_column"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("customers", sa.Column("favourite_id", sa.BigInteger()))
    op.create_index("ix_customers_favourite_id", "customers", ["favourite_id"])
    op.create_foreign_key("fk_customers_favourite_id", "customers", "products", ["favourite_id"], ["id"])


def downgrade() -> None:
    op.drop_column("customers", "favourite_id")
