"""The rule ``transaction-nesting``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="transaction-nesting",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="The revision ends the transaction that it runs in: if it fails later, the first half stays.",
    fix="""\
# Leave out BEGIN, COMMIT and ROLLBACK. What must run outside a transaction runs in an autocommit block:
with op.get_context().autocommit_block():
    op.execute("VACUUM ANALYZE")""",
    known_to_squawk=True,
    measured="The upgrade, the downgrade and the upgrade once more, with rows in the tables.",
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
