"""The rule ``ban-truncate-cascade``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-truncate-cascade",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="It empties every table with a foreign key to this one, too, whatever is in it by then.",
    fix="# Name each table that is to be emptied in the TRUNCATE, and leave out CASCADE.",
    known_to_squawk=True,
    measured="The schema before and after, by the numbers that PostgreSQL gives to its objects.",
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
