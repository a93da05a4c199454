"""The rule ``ban-drop-function``. `compatibility.objects_gone` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-drop-function",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every query of the running application that calls {name} fails after this revision.",
    fix="# Release an application that does not call it. Drop it in a later revision.",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
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
