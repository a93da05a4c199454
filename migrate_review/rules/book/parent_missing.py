"""The rule ``parent-missing``. `graph.shape` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="parent-missing",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="Alembic cannot load the tree: it lacks {parent}, the down_revision of this revision.",
    fix="# Add the file of that revision, or correct down_revision.",
    measured="Nothing: the rule reads the revision files.",
)
