"""Products do not note changes any more."""

# expect: trigger-dropped warning

from alembic import op

revision = "trigger_dropped"
down_revision = "shop_report"


def upgrade() -> None:
    op.execute("DROP TRIGGER noted ON products")


def downgrade() -> None:
    op.execute("CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON products FOR EACH ROW EXECUTE FUNCTION note_change()")
