"""The rule ``writes-read-table``. `application.writes` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="writes-read-table",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="Every {kind} of {table} reads all of {other} after this revision.",
    fix="""\
# Let the trigger read {other} through an index, or write the work to a queue table and do it later.""",
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
