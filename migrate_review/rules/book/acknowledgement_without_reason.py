"""The rule ``acknowledgement-without-reason``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="acknowledgement-without-reason",
    severity=Severity.WARNING,
    theme=Theme.GRAPH,
    hazard="A reader cannot tell why {rule} is no trouble here, so it does not count.",
    fix="# -- reviewed: {rule} <why this is no trouble here>",
    measured="Nothing: it shows in the files of the revisions.",
)
