"""Items may belong to a customer."""

import sqlalchemy as sa
from alembic import op

revision = "column_with_foreign_key"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("items", sa.Column("customer_id", sa.BigInteger()))
    op.create_foreign_key(
        "fk_items_customer_id", "items", "customers", ["customer_id"], ["id"], postgresql_not_valid=True
    )
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_items_customer_id", "items", ["customer_id"], postgresql_concurrently=True, if_not_exists=True
        )
        op.execute("ALTER TABLE items VALIDATE CONSTRAINT fk_items_customer_id")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_items_customer_id", table_name="items", postgresql_concurrently=True, if_exists=True)
    op.drop_column("items", "customer_id")
