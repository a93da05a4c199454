"""The rule ``prefer-robust-stmts``. `locks.commits_in_between` checks it."""

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

RULE = Rule(
    name="prefer-robust-stmts",
    severity=Severity.WARNING,
    theme=Theme.LOCKS,
    hazard=(
        "The revision commits part of its work before its end. If it is interrupted after that, it fails when it runs"
        " again."
    ),
    fix="""\
# Move the row changes before the autocommit block to their own revision. Or make every statement repeatable:
# if_not_exists=True, if_exists=True, IF NOT EXISTS and IF EXISTS in SQL, ON CONFLICT DO NOTHING.""",
    known_to_squawk=True,
    measured=(
        "The upgrade, stopped after each commit and run again as the function runs it: the function skips schema"
        " changes and indexes that are already applied."
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
