"""The rule ``rows-locked``. `locks.rows_locked` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="rows-locked",
    severity=Severity.WARNING,
    theme=Theme.LOCKS,
    hazard="A query locks rows of {table}. Every UPDATE and DELETE of these rows waits until the transaction ends.",
    fix="""\
# Remove FOR UPDATE or FOR SHARE. Or lock the rows in batches along the primary key, each batch in its own
# transaction.""",
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
