"""A channel of orders, after a look at the items."""

import sqlalchemy as sa
from alembic import op

revision = "read_then_locked"
down_revision = "shop"


def upgrade() -> None:
    op.get_bind().execute(sa.text("SELECT count(*) FROM items WHERE quantity > 3")).scalar()
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
