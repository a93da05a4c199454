"""The rule ``table-rewrite``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="table-rewrite",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="All {blocked} of {table} wait while the whole table is written anew.",
    fix="# Make a new column or table, fill it in batches, and switch the application over to it.",
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten meanwhile.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER TABLE visits SET UNLOGGED")
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: changing-column-type we do not downgrade while anybody waits
    # -- reviewed: downgrade-depends-on-data whoever downgrades cuts the values first
    op.alter_column("customers", "phone", type_=sa.Text())
""",
)
