"""The rule ``adding-required-field``. `compatibility.required_columns` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="adding-required-field",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard=(
        "The revision fails if {table} has rows. Every insert of the running application fails, because it does not"
        " write {column}."
    ),
    fix="""\
# this revision: a nullable column
op.execute("ALTER TABLE {table} ADD COLUMN {column} {type}")
# a later revision, when every release writes it and every row has a value: NOT NULL
# Or set a constant server_default: PostgreSQL stores it once, not in each row.""",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text(), nullable=False))
""",
    good="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("urgent", sa.Boolean(), server_default=sa.false(), nullable=False))
""",
)
