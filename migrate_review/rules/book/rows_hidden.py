"""The rule ``rows-hidden``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Catalog, Table
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="rows-hidden",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="The running application no longer finds the rows of {child} in {parent}, and no longer changes them there.",
    fix="""\
# Detach {child} when no release reads or writes its rows through {parent}, and acknowledge the finding:
# -- reviewed: rows-hidden no release needs these rows""",
    measured="The parents of each table and partition, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER TABLE steps_of_robots NO INHERIT steps")


def downgrade() -> None:
    op.execute("ALTER TABLE steps_of_robots INHERIT steps")
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER TABLE steps_of_robots NO INHERIT steps, ADD COLUMN robot text")
    op.execute("ALTER TABLE steps_of_robots INHERIT steps")


def downgrade() -> None:
    op.execute("ALTER TABLE steps_of_robots DROP COLUMN robot")
""",
)

# The form in which `migrate_review.measure.catalog` writes a table's parents.
_PARENTS = re.compile(r"(?:^|; )inherits ([^;]+)")


def check(case: Case) -> Iterator[Finding]:
    """Yield the tables that had rows and no longer belong to a parent. A dropped table has its own rules."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    for table in before.tables:
        now = after.table(table.oid)
        if now is None or not case.observation.rows.get(table.name):
            continue
        for parent in sorted(_parents(before, table) - _parents(after, now)):
            if after.table_named(parent) is None:
                continue  # it is renamed or dropped, which has its own rule
            rows = case.observation.rows[table.name]
            evidence = f"{table.name} ({rows} rows) belonged to {parent}, and does not afterwards"
            yield case.found(RULE, evidence, child=now.name, parent=parent)


def _parents(catalog: Catalog, table: Table) -> set[str]:
    found = _PARENTS.search(catalog.table_settings(table.name))
    return set(found[1].split(", ")) if found else set()
