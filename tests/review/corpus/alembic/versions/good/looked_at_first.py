"""Refuse to run where it would not be right."""

import sqlalchemy as sa
from alembic import op

revision = "looked_at_first"
down_revision = "shop"


def upgrade() -> None:
    if op.get_bind().execute(sa.text("SELECT count(*) FROM orders WHERE total > 1e9")).scalar_one():
        raise RuntimeError("there are orders that are too large")
    op.add_column("orders", sa.Column("discount", sa.Numeric(10, 2)))


def downgrade() -> None:
    op.drop_column("orders", "discount")
