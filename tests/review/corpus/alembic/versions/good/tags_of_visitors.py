"""The tags of visitors, one by one."""

from alembic import op

revision = "tags_of_visitors"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("CREATE TABLE tags (tag text CONSTRAINT pk_tags PRIMARY KEY)")
    op.execute("INSERT INTO tags SELECT DISTINCT jsonb_array_elements_text(tags) FROM visitors")


def downgrade() -> None:
    op.drop_table("tags")
