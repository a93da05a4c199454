"""A channel of orders, if there are items of known orders."""

# expect: lock-held-during-other-work error

import sqlalchemy as sa
from alembic import op

revision = "locked_then_select_by_index"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.get_bind().execute(sa.text("SELECT count(quantity) FROM items WHERE order_id > 0")).scalar()


def downgrade() -> None:
    op.drop_column("orders", "channel")
