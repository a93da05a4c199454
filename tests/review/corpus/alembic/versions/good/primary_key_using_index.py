"""Visits get a key."""

from alembic import op

revision = "primary_key_using_index"
down_revision = "shop_not_valid"


def upgrade() -> None:
    op.execute("ALTER TABLE visits ADD CONSTRAINT pk_visits PRIMARY KEY USING INDEX pk_visits")


def downgrade() -> None:
    op.drop_constraint("pk_visits", "visits")
    with op.get_context().autocommit_block():
        op.create_index("pk_visits", "visits", ["id"], unique=True, postgresql_concurrently=True, if_not_exists=True)
