"""Orders forget the zone of their time, which is UTC."""

import sqlalchemy as sa
from alembic import op

revision = "time_zone_set"
down_revision = "shop"


def upgrade() -> None:
    op.execute("SET LOCAL TIME ZONE 'UTC'")
    op.alter_column("orders", "placed_at", type_=sa.DateTime(), existing_type=sa.DateTime(timezone=True))


def downgrade() -> None:
    op.execute("SET LOCAL TIME ZONE 'UTC'")
    op.alter_column("orders", "placed_at", type_=sa.DateTime(timezone=True), existing_type=sa.DateTime())
