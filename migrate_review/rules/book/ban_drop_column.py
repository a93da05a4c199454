"""The rule ``ban-drop-column``. `compatibility.tables_and_columns_gone` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-drop-column",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard=(
        "Every query of the running application that names {table}.{column} fails after this revision. The values are"
        " lost."
    ),
    fix="""\
# 1. release an application that does not map the column; until then it must be nullable:
op.alter_column("{table}", "{column}", nullable=True{table_schema})
# 2. drop it in a later revision, and acknowledge the finding:
# -- reviewed: ban-drop-column no release reads it
op.drop_column("{table}", "{column}"{table_schema})""",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.drop_column("items", "gift_message")
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: ban-drop-column no release since 4.2 maps the column
    # -- reviewed: values-lost the messages were printed, and nobody needs them now
    op.drop_column("items", "gift_message")
""",
)
