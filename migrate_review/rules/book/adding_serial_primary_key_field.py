"""The rule ``adding-serial-primary-key-field``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="adding-serial-primary-key-field",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard=(
        "Every read and write of {table} waits while PostgreSQL numbers its rows or builds the index of the primary"
        " key."
    ),
    fix="""\
# 1. add a nullable bigint column, fill it in batches, and validate a check that it is not NULL
# 2. a later revision:
with op.get_context().autocommit_block():
    op.create_index(
        "{name}", "{table}", [{columns}]{table_schema}, unique=True,
        postgresql_concurrently=True, if_not_exists=True,
    )
op.execute("ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {name}")""",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER TABLE visits ADD COLUMN id bigserial PRIMARY KEY")
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER TABLE visits ADD CONSTRAINT pk_visits PRIMARY KEY USING INDEX pk_visits")
""",
)
