"""The rule ``ban-alter-domain-with-add-constraint``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-alter-domain-with-add-constraint",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="Every write to {table} waits while all values of the domain are checked.",
    fix="# Add the constraint to the domain with NOT VALID in this revision, and validate it in the next one.",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten meanwhile.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER DOMAIN amount ADD CONSTRAINT ck_amount CHECK (value > -100000000)")
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER DOMAIN amount ADD CONSTRAINT ck_amount CHECK (value > -100000000) NOT VALID")
""",
)
