"""The rule ``disallowed-unique-constraint``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="disallowed-unique-constraint",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="Every read and write of {table} waits while PostgreSQL builds the index of {name}.",
    fix="""\
with op.get_context().autocommit_block():
    op.create_index(
        "{name}", "{table}", [{columns}]{table_schema}, unique=True,
        postgresql_concurrently=True, if_not_exists=True,
    )
op.execute("ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}")""",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.create_unique_constraint("uq_customers_email_name", "customers", ["email", "name"])
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER TABLE orders ADD CONSTRAINT uq_orders_legacy_ref UNIQUE USING INDEX uq_orders_legacy_ref")
""",
)
