"""The pages of the robots' manuals."""

from alembic import op

revision = "manuals_of_robots"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("CREATE TABLE pages (pages bigint CONSTRAINT pk_pages PRIMARY KEY)")
    op.execute(
        "INSERT INTO pages SELECT DISTINCT (manual->>'pages')::int FROM robots WHERE manual->>'pages' IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_table("pages")
