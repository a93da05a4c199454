"""An enum keeps its new label: PostgreSQL cannot remove one."""

from alembic import op

revision = "enum_label_left"
down_revision = "shop_checks"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TYPE order_state ADD VALUE IF NOT EXISTS 'lost'")


def downgrade() -> None:
    pass
