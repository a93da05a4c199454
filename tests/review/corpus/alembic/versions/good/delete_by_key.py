"""One item goes, and comes back."""

from alembic import op

revision = "delete_by_key"
down_revision = "shop"


def upgrade() -> None:
    op.execute("CREATE TABLE gone (LIKE items, CONSTRAINT pk_gone PRIMARY KEY (id))")
    op.execute("INSERT INTO gone SELECT * FROM items WHERE id = 7")
    op.execute("DELETE FROM items WHERE id = 7")


def downgrade() -> None:
    op.execute("INSERT INTO items SELECT * FROM gone")
    op.drop_table("gone")
