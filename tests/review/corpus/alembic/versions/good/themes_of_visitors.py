"""The themes that visitors prefer."""

import sqlalchemy as sa
from alembic import op

revision = "themes_of_visitors"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("CREATE TABLE themes (theme text CONSTRAINT pk_themes PRIMARY KEY)")
    found = op.get_bind().execute(sa.text("SELECT prefs FROM visitors")).all()
    for theme in {row.prefs["theme"] for row in found}:
        op.get_bind().execute(sa.text("INSERT INTO themes VALUES (:theme)"), {"theme": theme})


def downgrade() -> None:
    op.drop_table("themes")
