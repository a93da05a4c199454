"""The rule ``unused-acknowledgement``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="unused-acknowledgement",
    severity=Severity.NOTE,
    theme=Theme.GRAPH,
    hazard="The revision acknowledges {rule}, which was not found.",
    fix="# Remove the comment.",
    measured="Nothing: it shows in the files of the revisions.",
)
