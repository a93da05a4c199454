"""An update that changes no value writes nothing."""

from alembic import op

revision = "update_of_nothing_suppressed"
down_revision = "shop"


def upgrade() -> None:
    op.execute(
        "CREATE TRIGGER z_same BEFORE UPDATE ON orders FOR EACH ROW"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER z_same ON orders")
