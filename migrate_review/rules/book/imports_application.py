"""The rule ``imports-application``. `sources.imports` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="imports-application",
    severity=Severity.WARNING,
    theme=Theme.GRAPH,
    hazard="The revision imports {module}. If that module changes, the revision fails or does something else.",
    fix="""\
# Copy what the revision needs from it, as it is today:
users = sa.table("users", sa.column("id"), sa.column("name"))""",
    measured="Nothing: the rule reads the revision files.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("label", sa.Text(), server_default=LABEL))
""",
)
