"""The rule ``renaming-column``. `compatibility.renames` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="renaming-column",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Every query of the running application that names {table}.{old} fails after this revision.",
    fix="""\
# 1. this revision, with an application that writes both columns:
op.execute("ALTER TABLE {table} ADD COLUMN {new} {type}")
# 2. copy the values in batches; the application reads {new}
# 3. a later revision:
op.drop_column("{table}", "{old}"{table_schema})""",
    known_to_squawk=True,
    measured="The schema before and after. Objects are matched by PostgreSQL's ids, not by name.",
    bad="""\
def upgrade() -> None:
    op.alter_column("customers", "nickname", new_column_name="alias")
""",
    good="""\
def upgrade() -> None:
    op.add_column("customers", sa.Column("alias", sa.Text()))
""",
)
