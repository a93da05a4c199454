"""A label of the application's."""

# expect: imports-application warning

import sqlalchemy as sa
from alembic import op
from shop_app import LABEL  # type: ignore[import-not-found]  # the backend puts it on the path

revision = "imports_application"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("label", sa.Text(), server_default=LABEL))


def downgrade() -> None:
    op.drop_column("orders", "label")
