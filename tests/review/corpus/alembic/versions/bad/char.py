"""Countries with blanks."""

# expect: ban-char-field note

import sqlalchemy as sa
from alembic import op

revision = "char"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("customers", sa.Column("country", sa.CHAR(3)))


def downgrade() -> None:
    op.drop_column("customers", "country")
