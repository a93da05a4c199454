"""The rule ``models-differ``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="models-differ",
    severity=Severity.ERROR,
    theme=Theme.GRAPH,
    hazard="The application expects another schema than the revisions make: {difference}",
    fix='alembic revision --autogenerate -m "What the models have and the tables lack"',
    measured="What autogenerate finds at the head.",
)
