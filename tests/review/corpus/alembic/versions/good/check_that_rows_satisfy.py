"""No note as long as a book, from now on."""

from alembic import op

revision = "check_that_rows_satisfy"
down_revision = "shop"


def upgrade() -> None:
    op.create_check_constraint("ck_orders_note", "orders", "length(note) < 100000", postgresql_not_valid=True)


def downgrade() -> None:
    op.drop_constraint("ck_orders_note", "orders")
