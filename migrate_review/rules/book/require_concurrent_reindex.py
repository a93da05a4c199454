"""The rule ``require-concurrent-reindex``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="require-concurrent-reindex",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="Every write to {table} waits while PostgreSQL rebuilds its index.",
    fix="""\
with op.get_context().autocommit_block():
    op.execute("REINDEX TABLE CONCURRENTLY {table}")""",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.execute("REINDEX TABLE orders")
""",
    good="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("REINDEX TABLE CONCURRENTLY orders")
""",
)
