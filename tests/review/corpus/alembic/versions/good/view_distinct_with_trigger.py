"""Open orders, each once, written by a trigger."""

from alembic import op

revision = "view_distinct_with_trigger"
down_revision = "shop"


def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS SELECT DISTINCT id, customer_id, total FROM orders WHERE state = 'open'"
    )
    op.execute(
        "CREATE FUNCTION write_order() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF TG_OP = 'DELETE' THEN DELETE FROM orders WHERE id = OLD.id; RETURN OLD; END IF;"
        " UPDATE orders SET total = NEW.total WHERE id = NEW.id;"
        " RETURN NEW; END $$"
    )
    op.execute(
        "CREATE TRIGGER written INSTEAD OF INSERT OR UPDATE OR DELETE ON open_orders"
        " FOR EACH ROW EXECUTE FUNCTION write_order()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER written ON open_orders")
    op.execute("DROP FUNCTION write_order()")
    op.execute("CREATE OR REPLACE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
