"""Remember when orders change."""

import sqlalchemy as sa
from alembic import op

revision = "new_trigger"
down_revision = "shop"


def upgrade() -> None:
    op.add_column("orders", sa.Column("changed_at", sa.DateTime(timezone=True)))
    op.execute("""
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.changed_at := now(); RETURN NEW; END $$
    """)
    op.execute("CREATE TRIGGER touched BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch()")


def downgrade() -> None:
    op.execute("DROP TRIGGER touched ON orders")
    op.execute("DROP FUNCTION touch")
    op.drop_column("orders", "changed_at")
