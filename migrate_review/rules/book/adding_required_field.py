"""The rule ``adding-required-field``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="adding-required-field",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard=(
        "It fails if {table} has a row, and so does every insert of the running application, which knows no {column}."
    ),
    fix="""\
# nullable now:
op.execute("ALTER TABLE {table} ADD COLUMN {column} {type}")
# and required in a later revision, when every release writes it and every row has it. A constant server_default would
# do, too: it is kept with the table and not written to its rows.""",
    known_to_squawk=True,
    measured="The schema before and after, by the numbers that PostgreSQL gives to its objects.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text(), nullable=False))
""",
    good="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("urgent", sa.Boolean(), server_default=sa.false(), nullable=False))
""",
)
