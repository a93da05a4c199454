"""The rule ``parent-not-head``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="parent-not-head",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="{parent}, which the revision builds on, is not the head of {ref}, which is {heads}: merged, there are two.",
    fix='down_revision = "{heads}"  # after taking up {ref}: git rebase {ref}',
    measured="Nothing: it shows in the files of the revisions.",
)
