"""The rule ``scan-while-locked``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="scan-while-locked",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="All {blocked} of {table} wait while the transaction reads its rows and holds {lock}.",
    fix="""\
# Move this statement to its own revision, after the one that alters {table}:
op.execute({sql!r})""",
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.execute("DO $$ BEGIN EXECUTE 'CREATE INDEX ix_orders_total ON orders (total)'; END $$")
""",
    good="""\
def upgrade() -> None:
    op.get_bind().execute(sa.text("SELECT count(*) FROM items WHERE quantity > 3")).scalar()
    op.add_column("orders", sa.Column("channel", sa.Text()))
""",
)
