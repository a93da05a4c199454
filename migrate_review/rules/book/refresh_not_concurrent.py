"""The rule ``refresh-not-concurrent``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="refresh-not-concurrent",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="Every query on {view} waits while PostgreSQL recomputes its rows.",
    fix="""\
# CONCURRENTLY needs a unique index on columns of the view:
op.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY {view}")""",
    measured="The lock on the materialized view, and whether PostgreSQL rewrote its file.",
    bad="""\
def upgrade() -> None:
    op.execute("REFRESH MATERIALIZED VIEW totals")
""",
    good="""\
def upgrade() -> None:
    op.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY totals")
""",
)
