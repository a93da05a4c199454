"""The rule ``orphans-left``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="orphans-left",
    severity=Severity.ERROR,
    theme=Theme.DOWNGRADE,
    hazard="Rows of {table} refer to rows of {other} that do not exist. PostgreSQL takes the foreign key to be valid"
    " and never checks them again.",
    fix="""\
# Let PostgreSQL check foreign keys. Remove SET session_replication_role = replica, and DISABLE TRIGGER ALL.""",
    measured="The rows that violate a valid foreign key, of each table that the upgrade writes to.",
    bad="""\
def upgrade() -> None:
    op.execute("SET session_replication_role = replica")
    op.execute("UPDATE items SET order_id = -1 WHERE id = 1")
    op.execute("SET session_replication_role = origin")
""",
    good="""\
def upgrade() -> None:
    op.execute("UPDATE items SET order_id = order_id WHERE id = 1")
""",
)


def check(case: Case) -> Iterator[Finding]:
    """Yield the tables with orphans after the upgrade."""
    for (table, other), count in case.observation.orphans.items():
        evidence = f"{count} rows of {table} refer to no row of {other}"
        yield case.found(RULE, evidence, table=table, other=other)
