"""The rule ``changing-column-type``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="changing-column-type",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="Every read and write of {table} waits while PostgreSQL converts {column} from {old} to {new} in every row.",
    fix="""\
# 1. add a second column; the application writes both
op.execute("ALTER TABLE {table} ADD COLUMN {second} {new}")
# 2. copy the values in batches, each in its own transaction
# 3. the application reads {second}; a later revision drops {column}""",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.execute("DROP VIEW open_orders")
    op.execute("ALTER TABLE orders ALTER COLUMN state DROP DEFAULT, ALTER COLUMN state TYPE text USING state::text")
    op.execute("ALTER TABLE orders ALTER COLUMN state SET DEFAULT 'open'")
    op.execute("CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open'")
""",
    good="""\
def upgrade() -> None:
    # -- reviewed: changing-column-type we stop the application before a downgrade
    # -- reviewed: downgrade-depends-on-data we shorten the values before a downgrade
    op.alter_column("customers", "phone", type_=sa.String(100))
""",
)
