"""Make orders small again."""

# expect: table-rewrite error

from alembic import op

revision = "vacuum_full"
down_revision = "shop"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("VACUUM FULL orders")


def downgrade() -> None:
    op.execute("SELECT 1")
