"""The rule ``does-not-load``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="does-not-load",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="Alembic cannot load the revision, so that nothing can be migrated: {failure}",
    fix="# Correct the file: python {path}",
    measured="Nothing: it shows in the files of the revisions.",
)
