"""The rule ``ban-char-field``. `keys.new_tables_and_columns` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-char-field",
    severity=Severity.NOTE,
    theme=Theme.KEYS,
    hazard="PostgreSQL pads the values of {table}.{column} with spaces.",
    fix='sa.Column("{column}", sa.Text())',
    known_to_squawk=True,
    measured="The schema after the upgrade, compared with the one before.",
    bad="""\
def upgrade() -> None:
    op.add_column("customers", sa.Column("country", sa.CHAR(3)))
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: changing-column-type we stop the application before a downgrade
    # -- reviewed: downgrade-depends-on-data we shorten the values before a downgrade
    op.alter_column("customers", "phone", type_=sa.Text())
""",
)
