"""No more gifts."""

# expect: ban-drop-column error, values-lost error

import sqlalchemy as sa
from alembic import op

revision = "column_dropped"
down_revision = "shop"


def upgrade() -> None:
    op.drop_column("items", "gift_message")


def downgrade() -> None:
    op.add_column("items", sa.Column("gift_message", sa.Text()))
