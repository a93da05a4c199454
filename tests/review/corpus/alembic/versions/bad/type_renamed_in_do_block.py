"""The states of orders get another name."""

# expect: renaming-object error

from alembic import op

revision = "type_renamed_in_do_block"
down_revision = "shop"


def upgrade() -> None:
    op.execute("DO $$ BEGIN EXECUTE 'ALTER TYPE order_state RENAME TO state_of_order'; END $$")


def downgrade() -> None:
    op.execute("ALTER TYPE state_of_order RENAME TO order_state")
