"""The rule ``ban-drop-database``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-drop-database",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="A database is dropped with all that is in it.",
    fix="# No revision drops a database.",
    known_to_squawk=True,
    measured="The schema before and after, by the numbers that PostgreSQL gives to its objects.",
    bad="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP DATABASE shop_of_2019")
""",
    good="""\
def upgrade() -> None:
    pass  # whoever may drop a database does it by hand, after a look at its sessions
""",
)
