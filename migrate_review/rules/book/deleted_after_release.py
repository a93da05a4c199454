"""The rule ``deleted-after-release``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="deleted-after-release",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="The revision is on {ref}: a database that is at it cannot be migrated any more.",
    fix="git checkout {ref} -- {path}",
    measured="Nothing: it shows in the files of the revisions.",
)
