"""The rule ``ban-truncate-cascade``. `compatibility.squawk_remarks` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-truncate-cascade",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="TRUNCATE CASCADE also empties every table with a foreign key to the truncated one.",
    fix="# Remove CASCADE, and list each table to empty in the TRUNCATE.",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.execute("TRUNCATE orders CASCADE")
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: rows-lost these are the orders of the pilot
    op.execute("TRUNCATE orders, items")
""",
)
