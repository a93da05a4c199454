"""The rule ``ban-drop-function``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-drop-function",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every query of the running application that calls {name} fails from here on.",
    fix="# Release an application that does not call it; then drop it, in a later revision.",
    known_to_squawk=True,
    measured="The schema before and after, by the numbers that PostgreSQL gives to its objects.",
    bad="""\
def upgrade() -> None:
    op.execute("DROP FUNCTION order_total")
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: ban-drop-function no release since 4.2 calls it
    op.execute("DROP FUNCTION order_total")
""",
)
