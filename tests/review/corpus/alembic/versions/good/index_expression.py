"""Look for names whatever their case."""

import sqlalchemy as sa
from alembic import op

revision = "index_expression"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_customers_lower_name",
            "customers",
            [sa.text("lower(name)")],
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_customers_lower_name", "customers", postgresql_concurrently=True, if_exists=True)
