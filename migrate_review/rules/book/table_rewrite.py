"""The rule ``table-rewrite``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="table-rewrite",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="All {blocked} of {table} wait while PostgreSQL rewrites the whole table.",
    fix="# Create a new column or table, fill it in batches, and release an application that uses it.",
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER TABLE visits SET UNLOGGED")
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: changing-column-type we stop the application before a downgrade
    # -- reviewed: downgrade-depends-on-data we shorten the values before a downgrade
    op.alter_column("customers", "phone", type_=sa.Text())
""",
)
