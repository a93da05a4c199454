"""The rule ``several-heads``. `graph.shape` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="several-heads",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="`upgrade head` fails: the tree has several heads, {heads}.",
    fix='alembic merge -m "Merge heads" {heads_spaced}',
    measured="Nothing: the rule reads the revision files.",
)
