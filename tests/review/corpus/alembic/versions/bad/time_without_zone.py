"""Some time, somewhere."""

# expect: prefer-timestamp-tz note

import sqlalchemy as sa
from alembic import op

revision = "time_without_zone"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("sent_at", sa.DateTime()))


def downgrade() -> None:
    op.drop_column("orders", "sent_at")
