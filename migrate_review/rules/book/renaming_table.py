"""The rule ``renaming-table``. `compatibility.renames` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="renaming-table",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every query of the running application on {old} fails after this revision.",
    fix="""\
op.execute("ALTER TABLE {old} RENAME TO {new.own}")
# in the same revision: a view for reads and writes of the old name
op.execute("CREATE VIEW {old} AS SELECT * FROM {new}")
# a later revision, when no release uses the old name:
op.execute("DROP VIEW {old}")""",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.rename_table("customers", "clients")
""",
    good="""\
def upgrade() -> None:
    op.rename_table("customers", "clients")
    op.execute("CREATE VIEW customers AS SELECT * FROM clients")
""",
)
