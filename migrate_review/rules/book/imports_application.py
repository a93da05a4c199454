"""The rule ``imports-application``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="imports-application",
    severity=Severity.WARNING,
    theme=Theme.GRAPH,
    hazard="The revision imports {module}: when that changes later, the revision does something else or fails.",
    fix="""\
# Write down what the revision needs of it, as it is today:
users = sa.table("users", sa.column("id"), sa.column("name"))""",
    measured="Nothing: it shows in the files of the revisions.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("label", sa.Text(), server_default=LABEL))
""",
)
