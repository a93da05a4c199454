"""The rule ``ban-set-schema``. `compatibility.renames` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-set-schema",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every query of the running application on {old} fails after this revision: its schema changes.",
    fix='# Create a view of the old name in this revision:\nop.execute("CREATE VIEW {old} AS SELECT * FROM {new}")',
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.execute("CREATE SCHEMA statistics")
    op.execute("ALTER TABLE visits SET SCHEMA statistics")
""",
    good="""\
def upgrade() -> None:
    op.execute("CREATE SCHEMA statistics")
    op.execute("ALTER TABLE visits SET SCHEMA statistics")
    op.execute("CREATE VIEW visits AS SELECT * FROM statistics.visits")
""",
)
