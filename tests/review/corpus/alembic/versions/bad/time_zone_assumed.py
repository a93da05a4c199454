"""Orders forget the zone of their time."""

# expect: changing-column-type error, time-zone-assumed warning

import sqlalchemy as sa
from alembic import op

revision = "time_zone_assumed"
down_revision = "shop"


def upgrade() -> None:
    op.alter_column("orders", "placed_at", type_=sa.DateTime(), existing_type=sa.DateTime(timezone=True))


def downgrade() -> None:
    op.alter_column("orders", "placed_at", type_=sa.DateTime(timezone=True), existing_type=sa.DateTime())
