"""The rule ``ban-drop-view``. `compatibility.objects_gone` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-drop-view",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every query of the running application on the view {name} fails after this revision.",
    fix="# Release an application that does not use it. Drop it in a later revision.",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.execute("DROP VIEW open_orders")
""",
    good="""\
def upgrade() -> None:
    op.execute(
        "CREATE OR REPLACE VIEW open_orders AS SELECT id, customer_id, total, note FROM orders WHERE state = 'open'"
    )
""",
)
