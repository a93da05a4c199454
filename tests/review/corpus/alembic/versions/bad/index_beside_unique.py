"""An index that the unique constraint has already."""

# expect: duplicate-index warning

from alembic import op

revision = "index_beside_unique"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index("ix_customers_email", "customers", ["email"], postgresql_concurrently=True, if_not_exists=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_customers_email", "customers", postgresql_concurrently=True, if_exists=True)
