"""The rule ``models-differ``. `review._drift` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="models-differ",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="The models and the schema of the revisions differ: {difference}",
    fix='alembic revision --autogenerate -m "Match the models"',
    measured="The differences that autogenerate finds at the head.",
)
