"""The rule ``backfill-in-one-transaction``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="backfill-in-one-transaction",
    severity=Severity.WARNING,
    theme=Theme.LOCKS,
    hazard=(
        "One transaction changes {table} as a whole: its rows stay locked until the end, replicas fall behind, and"
        " whatever stops it throws all of it away."
    ),
    fix="# Change the rows in batches along the primary key, each batch in a transaction of its own.",
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten meanwhile.",
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
