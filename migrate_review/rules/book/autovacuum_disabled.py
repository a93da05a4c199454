"""The rule ``autovacuum-disabled``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules import difference
from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="autovacuum-disabled",
    severity=Severity.WARNING,
    theme=Theme.COMPATIBILITY,
    hazard="PostgreSQL no longer vacuums {table}: it grows with each UPDATE and DELETE, and its queries get slower.",
    fix="""\
# Let autovacuum run less often or more slowly instead:
op.execute("ALTER TABLE {table} SET (autovacuum_vacuum_cost_delay = 10)")""",
    measured="The storage settings of each table before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER TABLE visits SET (autovacuum_enabled = false)")
""",
    good="""\
def upgrade() -> None:
    op.execute("ALTER TABLE visits SET (autovacuum_vacuum_scale_factor = 0.02)")
""",
)

# The words that PostgreSQL reads as false, and their beginnings.
_OFF = re.compile(r"autovacuum_enabled=(f|fa|fal|fals|false|n|no|of|off|0)(?=[,;]|$)", re.IGNORECASE)


def check(case: Case) -> Iterator[Finding]:
    """Yield the tables, new ones too, on which the revision disables autovacuum."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    for table, old, new in difference.settings_of_tables(before, after):
        if _OFF.search(new) and len(_OFF.findall(new)) > len(_OFF.findall(old)):
            yield case.found(RULE, f"the settings of {table.name} are: {new}", table=table.name)
