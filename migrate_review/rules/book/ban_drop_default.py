"""The rule ``ban-drop-default``. `compatibility.required_columns` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-drop-default",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="Inserts of the running application without {table}.{column} fail: it is NOT NULL and loses its default.",
    fix="""\
# Release an application that always writes {column}. Then, in a later revision:
op.alter_column("{table}", "{column}", server_default=None{table_schema})""",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.alter_column("orders", "currency", server_default=None)
""",
    good="""\
def upgrade() -> None:
    op.alter_column("customers", "language", server_default=None)
""",
)
