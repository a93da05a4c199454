"""The rule ``row-security-without-policy``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.rules import difference
from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Catalog
    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="row-security-without-policy",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="Only the owner of {table} can {denied} its rows after this revision: no policy allows it to other roles.",
    fix="""\
# in this revision:
op.execute("CREATE POLICY everything ON {table} USING (true) WITH CHECK (true)")  # replace it with a narrower one""",
    measured="Row-level security of each table, and the commands of its permissive policies, before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
""",
    good="""\
def upgrade() -> None:
    op.execute("CREATE POLICY everything ON orders USING (true)")
    op.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
""",
)

# The catalog has the condition for existing rows first, and then the one for new rows.
_ALLOWS_NOTHING = re.compile(r" false check(?: false)?$|^a .* check false$")
# By pg_policy's letter.
_COMMANDS = {"r": "read", "a": "insert", "w": "update", "d": "delete"}


def check(case: Case) -> Iterator[Finding]:
    """Yield the tables on which roles lose a command because no policy allows it."""
    before, after = case.observation.before, case.observation.after
    if after is None:
        return
    for was, now in difference.kept_tables(before, after):
        lost = [each for each in denied(after, now.name) if each not in denied(before, was.name)]
        if lost:
            evidence = f"row-level security is on, with {len(_policies(after, now.name))} policies"
            yield case.found(RULE, evidence, table=now.name, denied=" or ".join(lost))


def denied(catalog: Catalog, table: str) -> list[str]:
    """Return the commands that no policy allows on a table with row-level security."""
    if "row level security" not in catalog.table_settings(table):
        return []
    # "r t ...": the command's letter, or * for all, and whether the policy is permissive.
    allowed = {
        policy.split()[0]
        for policy in _policies(catalog, table)
        if policy.split()[1] in {"t", "true"} and not _ALLOWS_NOTHING.search(policy)
    }
    return [command for letter, command in _COMMANDS.items() if not allowed & {letter, "*"}]


def _policies(catalog: Catalog, table: str) -> list[str]:
    return [
        definition
        for name, definition in catalog.others.items()
        if name.startswith("policy ") and name.endswith(f" on {table}")
    ]
