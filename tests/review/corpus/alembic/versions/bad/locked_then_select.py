"""A channel of orders, if there are large items."""

# expect: lock-held-during-other-work error

import sqlalchemy as sa
from alembic import op

revision = "locked_then_select"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("channel", sa.Text()))
    op.get_bind().execute(sa.text("SELECT count(*) FROM items WHERE quantity > 3")).scalar()


def downgrade() -> None:
    op.drop_column("orders", "channel")
