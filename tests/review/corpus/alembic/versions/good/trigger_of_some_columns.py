"""Products note a change of two columns."""

from alembic import op

revision = "trigger_of_some_columns"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("DROP TRIGGER noted ON products")
    op.execute(
        "CREATE TRIGGER noted BEFORE INSERT OR UPDATE OF price, name ON products"
        " FOR EACH ROW EXECUTE FUNCTION note_change()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER noted ON products")
    op.execute("CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON products FOR EACH ROW EXECUTE FUNCTION note_change()")
