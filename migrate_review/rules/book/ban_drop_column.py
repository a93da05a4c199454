"""The rule ``ban-drop-column``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-drop-column",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard=(
        "Every query of the running application that names {table}.{column} fails from here on; its values are gone."
    ),
    fix="""\
# 1. release an application that does not map the column; meanwhile its inserts must not need it:
op.alter_column("{table}", "{column}", nullable=True{table_schema})
# 2. then drop it, in a later revision, and say so:
# -- reviewed: ban-drop-column no release reads it any more
op.drop_column("{table}", "{column}"{table_schema})""",
    known_to_squawk=True,
    measured="The schema before and after, by the numbers that PostgreSQL gives to its objects.",
    bad="""\
def upgrade() -> None:
    op.drop_column("items", "gift_message")
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: ban-drop-column no release since 4.2 maps the column
    # -- reviewed: values-lost the messages were printed and are worth nothing afterwards
    op.drop_column("items", "gift_message")
""",
)
