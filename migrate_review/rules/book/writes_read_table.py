"""The rule ``writes-read-table``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="writes-read-table",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="Every {kind} of {table} reads all of {other} from here on.",
    fix="""\
# Let the trigger read {other} by an index, or note what to do later in a table of its own.""",
    measured="The rows that one INSERT and one UPDATE of a row read in other tables.",
    bad='''\
def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM max(price) FROM products; RETURN NEW; END $$
    """)
    op.execute("CREATE TRIGGER looked BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION look()")
''',
    good='''\
def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM name FROM customers WHERE id = NEW.customer_id; RETURN NEW; END $$
    """)
    op.execute("CREATE TRIGGER looked BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION look()")
''',
)
