"""Countries."""

import sqlalchemy as sa
from alembic import op

revision = "new_table_with_rows"
down_revision = "shop"


def upgrade() -> None:
    countries = op.create_table(
        "countries", sa.Column("code", sa.Text(), nullable=False), sa.PrimaryKeyConstraint("code", name="pk_countries")
    )
    op.bulk_insert(countries, [{"code": "at"}, {"code": "ch"}, {"code": "de"}])


def downgrade() -> None:
    op.drop_table("countries")
