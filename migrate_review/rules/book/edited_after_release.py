"""The rule ``edited-after-release``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="edited-after-release",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="The revision is on {ref} already: databases that have run it will never run the change.",
    fix="git checkout {ref} -- {path}\n# and put the change into a new revision",
    measured="Nothing: it shows in the files of the revisions.",
)
