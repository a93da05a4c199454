"""The rule ``writes-fail``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="writes-fail",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every {kind} of {table} fails from here on: {failure}",
    fix="""\
# Correct what the server refuses. A constraint that no row satisfies comes after the rows do.""",
    measured="One INSERT, one UPDATE, which changes nothing, and one DELETE of five rows of each table that the"
    " revision may have changed. They are undone; those that fail before the revision as well do not count. An INSERT"
    " after which the table has no row more fails, too.",
    bad="""\
def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "state IS NULL", postgresql_not_valid=True)
""",
    good="""\
def upgrade() -> None:
    op.create_check_constraint("ck_orders_total", "orders", "state IS NOT NULL", postgresql_not_valid=True)
""",
)
