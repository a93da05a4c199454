"""The rule ``parent-missing``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="parent-missing",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="Alembic cannot load the tree: {parent}, which the revision builds on, is not in it.",
    fix="# Add that revision's file, or correct down_revision.",
    measured="Nothing: it shows in the files of the revisions.",
)
