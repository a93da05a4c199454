"""The rule ``privilege-revoked``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="privilege-revoked",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="The running application fails on {thing} after this revision: {grantee} loses {privileges}.",
    fix="""\
# A recreated object does not keep its privileges. Grant them again in this revision:
# {privileges} on {thing} to {grantee}""",
    measured="The privileges of each role on each object before and after, including an owner's defaults.",
    bad="""\
def upgrade() -> None:
    op.execute("REVOKE ALL ON orders FROM CURRENT_USER")
""",
    good="""\
def upgrade() -> None:
    op.execute("GRANT SELECT ON orders TO pg_monitor")
""",
)


_TABLE = re.compile(r"^table ")


def check(case: Case) -> Iterator[Finding]:
    """Yield the privileges that a role loses on an object that still exists."""
    before, after = case.observation.access_before, case.observation.access_after
    if before is None or after is None:
        return
    there = {name for name, _ in after.privileges} | after.owners.keys()
    for (was, grantee), had in before.privileges.items():
        # A view may replace a renamed table.
        name = was if was in there else _TABLE.sub("view ", was)
        owner, now = before.owners.get(was), after.owners.get(name)
        if owner != now and grantee == owner:
            continue  # owner-changed reports it
        lost = had - after.privileges.get((name, grantee), frozenset())
        whole = name in there or _is_column_of_one(name, there)
        if lost and whole:
            privileges = ", ".join(sorted(lost))
            evidence = f"{grantee} had {privileges} on {name}"
            yield case.found(RULE, evidence, thing=name, grantee=grantee, privileges=privileges)


def _is_column_of_one(name: str, there: set[str]) -> bool:
    """Return whether it is a column of an existing table. Columns without privileges are not listed."""
    kind, _, rest = name.partition(" ")
    return kind == "column" and f"table {rest.rpartition('.')[0]}" in there
