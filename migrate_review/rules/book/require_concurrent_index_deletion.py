"""The rule ``require-concurrent-index-deletion``. `locks.indexes_dropped` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="require-concurrent-index-deletion",
    severity=Severity.NOTE,
    theme=Theme.LOCKS,
    hazard=("Dropping the index {name} waits for every running query on {table}, and later queries queue behind it."),
    fix="""\
with op.get_context().autocommit_block():
    op.drop_index("{name}", table_name="{table}"{table_schema}, postgresql_concurrently=True, if_exists=True)""",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.drop_index("ix_products_name", table_name="products")
""",
    good="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_products_name", "products", postgresql_concurrently=True, if_exists=True)
""",
)
