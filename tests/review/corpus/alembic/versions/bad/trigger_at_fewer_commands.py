"""New products note no change."""

# expect: trigger-dropped warning

from alembic import op

revision = "trigger_at_fewer_commands"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("DROP TRIGGER noted ON products")
    op.execute("CREATE TRIGGER noted BEFORE UPDATE ON products FOR EACH ROW EXECUTE FUNCTION note_change()")


def downgrade() -> None:
    op.execute("DROP TRIGGER noted ON products")
    op.execute("CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON products FOR EACH ROW EXECUTE FUNCTION note_change()")
