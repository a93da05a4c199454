"""The rule ``ban-alter-domain-with-add-constraint``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-alter-domain-with-add-constraint",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="Every write to {table} waits while PostgreSQL checks all values of the domain.",
    fix="# Add the constraint with NOT VALID in this revision. Validate it in the next one.",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER DOMAIN amount ADD CONSTRAINT ck_amount CHECK (value > -100000000)")
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER DOMAIN amount ADD CONSTRAINT ck_amount CHECK (value > -100000000) NOT VALID")
""",
)
