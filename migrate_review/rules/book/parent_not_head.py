"""The rule ``parent-not-head``. `graph.history` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="parent-not-head",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="The down_revision {parent} is not the head of {ref} ({heads}). After a merge the tree has two heads.",
    fix='down_revision = "{heads}"  # after: git rebase {ref}',
    measured="Nothing: the rule reads the revision files.",
)
