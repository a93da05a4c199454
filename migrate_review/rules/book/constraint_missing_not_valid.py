"""The rule ``constraint-missing-not-valid``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="constraint-missing-not-valid",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="Other sessions wait for {table} while PostgreSQL checks {name} on all its rows.",
    fix="""\
# this revision:
op.execute("ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID")
# the next revision:
op.execute("ALTER TABLE {table} VALIDATE CONSTRAINT {name}")""",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "total > -100000000")
""",
    good="""\
def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "total >= 0", postgresql_not_valid=True)
""",
)
