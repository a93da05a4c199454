"""The rule ``prefer-robust-stmts``."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="prefer-robust-stmts",
    severity=Severity.WARNING,
    theme=Theme.LOCKS,
    hazard=(
        "The revision commits some of its work before its end: if it is stopped then, it fails when it runs again."
    ),
    fix="""\
# Give what changes rows before an autocommit block a revision of its own, or let it be run twice: if_not_exists=True,
# if_exists=True, IF NOT EXISTS and IF EXISTS in SQL, ON CONFLICT DO NOTHING.""",
    known_to_squawk=True,
    measured=(
        "The upgrade, stopped after each commit before its end and then run again as the function runs it, which skips"
        " schema changes and indexes that are done."
    ),
    bad="""\
def upgrade() -> None:
    op.add_column("orders", sa.Column("shop", sa.Text()))
    op.execute("UPDATE orders SET shop = 'main' WHERE id = 7")
    with op.get_context().autocommit_block():
        op.create_index("ix_orders_shop", "orders", ["shop"], postgresql_concurrently=True)
""",
    good="""\
def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_orders_placed_at", "orders", ["placed_at"], postgresql_concurrently=True, if_not_exists=True
        )
""",
)
