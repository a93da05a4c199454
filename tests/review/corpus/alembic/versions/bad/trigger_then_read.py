"""Orders keep their totals, after a look at all products."""

# expect: lock-held-during-other-work error

from alembic import op

revision = "trigger_then_read"
down_revision = "shop"


def upgrade() -> None:
    op.execute(
        "CREATE TRIGGER same BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    op.execute("SELECT max(price) FROM products")


def downgrade() -> None:
    op.execute("DROP TRIGGER same ON orders")
