"""A channel of orders; the runner's deadline is enough."""

import sqlalchemy as sa
from alembic import op

revision = "statement_timeout_off"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    op.add_column("orders", sa.Column("channel", sa.Text()))


def downgrade() -> None:
    op.drop_column("orders", "channel")
