"""The rule ``unused-acknowledgement``. `acknowledgements.sort_out` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="unused-acknowledgement",
    severity=Severity.NOTE,
    theme=Theme.GRAPH,
    hazard="The revision acknowledges {rule}, but has no such finding.",
    fix="# Remove the comment.",
    measured="Nothing: the rule reads the revision files.",
)
