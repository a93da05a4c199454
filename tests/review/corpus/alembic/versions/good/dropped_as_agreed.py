"""No more gifts, as agreed."""

import sqlalchemy as sa
from alembic import op

revision = "dropped_as_agreed"
down_revision = "shop"


def upgrade() -> None:
    # -- reviewed: ban-drop-column no release since 4.2 maps the column
    # -- reviewed: values-lost the messages were printed and are worth nothing afterwards
    op.drop_column("items", "gift_message")


def downgrade() -> None:
    op.add_column("items", sa.Column("gift_message", sa.Text()))
