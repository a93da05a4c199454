"""The rule ``edited-after-release``. `graph.history` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="edited-after-release",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="The revision is already on {ref}. Databases that have run it never run the change.",
    fix="git checkout {ref} -- {path}\n# then put the change into a new revision",
    measured="Nothing: the rule reads the revision files.",
)
