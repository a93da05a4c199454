"""The rule ``ban-drop-default``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-drop-default",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="Inserts of the running application that leave {table}.{column} to its default fail: it is required.",
    fix="""\
# Let every release write {column} first; then, in a later revision:
op.alter_column("{table}", "{column}", server_default=None{table_schema})""",
    known_to_squawk=True,
    measured="The schema before and after, by the numbers that PostgreSQL gives to its objects.",
    bad="""\
def upgrade() -> None:
    op.alter_column("orders", "currency", server_default=None)
""",
    good="""\
def upgrade() -> None:
    op.alter_column("customers", "language", server_default=None)
""",
)
