"""The rule ``transaction-nesting``. `compatibility.squawk_remarks` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="transaction-nesting",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="The revision ends its own transaction. If it fails later, the first part stays applied.",
    fix="""\
# Remove BEGIN, COMMIT and ROLLBACK. Use an autocommit block for statements that need no transaction:
with op.get_context().autocommit_block():
    op.execute("VACUUM ANALYZE")""",
    known_to_squawk=True,
    measured="The upgrade, the downgrade and a second upgrade, with rows in the tables.",
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))
    op.execute("COMMIT")
""",
    good="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("VACUUM ANALYZE orders")
""",
)
