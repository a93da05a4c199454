"""The rule ``duplicate-index``. `keys.duplicate_indexes` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="duplicate-index",
    severity=Severity.WARNING,
    theme=Theme.KEYS,
    hazard="Every write to {table} updates two equivalent indexes: {name} and {other}.",
    fix="""\
# Drop the one that no constraint needs:
op.drop_index("{name}", table_name="{table}"{table_schema})""",
    measured="The schema after the upgrade, compared with the one before.",
    bad="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index("ix_products_by_name", "products", ["name"], postgresql_concurrently=True, if_not_exists=True)
""",
    good="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_orders_state_placed_at",
            "orders",
            ["state", "placed_at"],
            postgresql_concurrently=True,
            if_not_exists=True,
        )
""",
)
