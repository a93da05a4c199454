"""The rule ``adding-not-nullable-field``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="adding-not-nullable-field",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="Every read and write of {table} waits while PostgreSQL searches all its rows for a NULL in {column}.",
    fix="""\
# this revision:
op.create_check_constraint("{check}", "{table}", "{column} IS NOT NULL"{table_schema}, postgresql_not_valid=True)
# the next revision: SET NOT NULL uses the validated constraint and reads no rows
op.execute("ALTER TABLE {table} VALIDATE CONSTRAINT {check}")
op.alter_column("{table}", "{column}", nullable=False{table_schema})
op.drop_constraint("{check}", "{table}"{table_schema})""",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.alter_column("customers", "nickname", nullable=False)
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER TABLE customers VALIDATE CONSTRAINT ck_nickname")
    op.alter_column("customers", "nickname", nullable=False)
    op.drop_constraint("ck_nickname", "customers")
""",
)
