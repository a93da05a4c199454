"""Orders have settings."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "add_json_column"
down_revision = "shop"


def upgrade() -> None:
    settings = sa.Column("settings", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False)
    op.add_column("orders", settings)


def downgrade() -> None:
    op.drop_column("orders", "settings")
