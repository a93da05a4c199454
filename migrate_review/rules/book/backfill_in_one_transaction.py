"""The rule ``backfill-in-one-transaction``. `locks.backfills` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="backfill-in-one-transaction",
    severity=Severity.WARNING,
    theme=Theme.LOCKS,
    hazard=(
        "One transaction changes many rows of {table}. They stay locked until it ends, replicas fall behind, and an"
        " interruption loses all of the work."
    ),
    fix="# Change the rows in batches along the primary key, each batch in its own transaction.",
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.execute("UPDATE items SET quantity = quantity + 1 WHERE id BETWEEN 1 AND 1000000000")
""",
    good="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        batch = sa.text(
            "UPDATE orders SET note = note WHERE id IN (SELECT id FROM orders WHERE id > :last ORDER BY id LIMIT 100)"
        )
        for last in range(0, 2000, 100):
            op.execute(batch.bindparams(last=last))
""",
)
