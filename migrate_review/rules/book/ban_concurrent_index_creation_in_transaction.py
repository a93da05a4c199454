"""The rule ``ban-concurrent-index-creation-in-transaction``. `downgrade.failures` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="ban-concurrent-index-creation-in-transaction",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="The upgrade fails: an index cannot be built or dropped concurrently inside a transaction.",
    fix="""\
with op.get_context().autocommit_block():
    op.execute({sql!r})""",
    known_to_squawk=True,
    measured="The upgrade, the downgrade and a second upgrade, with rows in the tables.",
    bad="""\
def upgrade() -> None:
    op.create_index("ix_orders_placed_at", "orders", ["placed_at"], postgresql_concurrently=True)
""",
    good="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_orders_placed_at", "orders", ["placed_at"], postgresql_concurrently=True, if_not_exists=True
        )
""",
)
