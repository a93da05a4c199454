"""The rule ``writes-fail``. `application.writes` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="writes-fail",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every {kind} of {table} fails after this revision: {failure}",
    fix="""\
# Correct the cause of the error. If a constraint refuses all rows, correct the rows first.""",
    measured="One INSERT, one UPDATE that changes no value, and one DELETE of five rows, on each table that the"
    " revision may have changed. All are rolled back. Those that also fail before the revision do not count. An INSERT"
    " that adds no row, and an UPDATE or a DELETE that leaves its row unchanged, count as failures.",
    bad="""\
def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "state IS NULL", postgresql_not_valid=True)
""",
    good="""\
def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "state IS NOT NULL", postgresql_not_valid=True)
""",
)
