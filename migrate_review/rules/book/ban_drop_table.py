"""The rule ``ban-drop-table``. `compatibility.tables_and_columns_gone` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-drop-table",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every query of the running application on {table} fails after this revision. Its rows are lost.",
    fix="""\
# 1. release an application that does not use {table}
# 2. drop it in a later revision, and acknowledge the finding:
# -- reviewed: ban-drop-table no release uses it
op.drop_table("{table}"{table_schema})""",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.drop_table("visits")
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: ban-drop-table no release since 4.2 reads it
    # -- reviewed: rows-lost the visits were counted, and nobody needs the rows now
    op.drop_table("visits")
""",
)
