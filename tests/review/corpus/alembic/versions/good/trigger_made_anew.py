"""The trigger of products is made anew."""

from alembic import op

revision = "trigger_made_anew"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("DROP TRIGGER noted ON products")
    op.execute("CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON products FOR EACH ROW EXECUTE FUNCTION note_change()")


def downgrade() -> None:
    op.execute("DROP TRIGGER noted ON products")
    op.execute("CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON products FOR EACH ROW EXECUTE FUNCTION note_change()")
