"""The rule ``rows-locked``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="rows-locked",
    severity=Severity.WARNING,
    theme=Theme.LOCKS,
    hazard="Every UPDATE and DELETE of the rows of {table} that a query locks waits until the transaction ends.",
    fix="""\
# Leave out FOR UPDATE or FOR SHARE, or lock the rows in batches along the primary key, each batch in a transaction of
# its own.""",
    measured="The rows that a query with FOR UPDATE or FOR SHARE has locked.",
    bad="""\
def upgrade() -> None:
    op.execute("SELECT id FROM orders FOR UPDATE")
""",
    good="""\
def upgrade() -> None:
    op.execute("SELECT id FROM orders WHERE id = 7 FOR UPDATE")
""",
)
