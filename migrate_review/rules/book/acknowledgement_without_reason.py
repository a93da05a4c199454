"""The rule ``acknowledgement-without-reason``. `acknowledgements.sort_out` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="acknowledgement-without-reason",
    severity=Severity.WARNING,
    theme=Theme.GRAPH,
    hazard="The acknowledgement of {rule} has no reason, so it does not count.",
    fix="# -- reviewed: {rule} <why it is safe here>",
    measured="Nothing: the rule reads the revision files.",
)
