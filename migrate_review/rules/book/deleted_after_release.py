"""The rule ``deleted-after-release``. `graph.history` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="deleted-after-release",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="The revision is on {ref}, but its file is missing. Alembic cannot migrate a database at this revision.",
    fix="git checkout {ref} -- {path}",
    measured="Nothing: the rule reads the revision files.",
)
