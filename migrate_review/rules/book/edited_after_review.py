"""The rule ``edited-after-review``. `graph.earlier_reviews` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="edited-after-review",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="The revision changed after its review.",
    fix="# Undo the change, or review the revision again:\nmigrate review {revision} --record",
    measured="The hash of the file, compared with the one in reviewed.json.",
)
