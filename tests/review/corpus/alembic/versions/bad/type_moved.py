"""The states of orders get a schema."""

# expect: renaming-object error

from alembic import op

revision = "type_moved"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE SCHEMA types")
    op.execute("ALTER TYPE order_state SET SCHEMA types")


def downgrade() -> None:
    op.execute("ALTER TYPE types.order_state SET SCHEMA public")
    op.execute("DROP SCHEMA types")
