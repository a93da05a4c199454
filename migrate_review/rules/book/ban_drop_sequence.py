"""The rule ``ban-drop-sequence``. `compatibility.objects_gone` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-drop-sequence",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="Every call of nextval() on {name} fails after this revision.",
    fix="# Release an application that does not use it. Drop it in a later revision.",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.execute("DROP SEQUENCE ticket_numbers")
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: ban-drop-sequence no release since 4.2 takes numbers from it
    op.execute("DROP SEQUENCE ticket_numbers")
""",
)
