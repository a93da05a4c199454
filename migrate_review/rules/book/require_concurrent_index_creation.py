"""The rule ``require-concurrent-index-creation``. `locks.work_that_others_wait_for` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="require-concurrent-index-creation",
    severity=Severity.ERROR,
    theme=Theme.LOCKS,
    hazard="Every write to {table} waits while PostgreSQL builds the index {name}. The wait grows with the table.",
    fix="""\
with op.get_context().autocommit_block():
    op.create_index(
        "{name}", "{table}", [{columns}]{table_schema}, unique={unique},
        postgresql_concurrently=True, if_not_exists=True,
    )""",
    known_to_squawk=True,
    measured="Each statement's locks until its transaction ends, and the rows read, changed and rewritten until then.",
    bad="""\
def upgrade() -> None:
    op.create_index("ix_orders_placed_at", "orders", ["placed_at"])
""",
    good="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_orders_placed_at", "orders", ["placed_at"], postgresql_concurrently=True, if_not_exists=True
        )
""",
)
