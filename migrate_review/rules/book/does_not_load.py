"""The rule ``does-not-load``. `graph.shape` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="does-not-load",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="Alembic cannot load the revision, so it can run no migration: {failure}",
    fix="# Correct the file. To see the error, run: python {path}",
    measured="Nothing: the rule reads the revision files.",
)
