"""The rule ``ban-drop-database``. `compatibility.squawk_remarks` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-drop-database",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="The revision drops a database and all of its data.",
    fix="# Drop the database by hand, not in a revision.",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP DATABASE shop_of_2019")
""",
    good="""\
def upgrade() -> None:
    pass  # an administrator drops a database by hand, after a check of its sessions
""",
)
