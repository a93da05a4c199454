"""The rule ``role-restricted``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.findings import Severity
from migrate_review.rules.rule import Rule, Theme

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

RULE = Rule(
    name="role-restricted",
    severity=Severity.ERROR,
    theme=Theme.COMPATIBILITY,
    hazard="The role {role} loses {lost} with this revision. An application that logs in with it may fail.",
    fix="""\
# Restrict {role} when no release logs in with it, and acknowledge the finding:
# -- reviewed: role-restricted no release uses it""",
    measured="The attributes and memberships of each role before and after.",
    bad="""\
def upgrade() -> None:
    op.execute("ALTER ROLE clerks NOLOGIN")
""",
    good="""\
def upgrade() -> None:
    op.execute("GRANT SELECT ON orders TO clerks")
""",
)


def check(case: Case) -> Iterator[Finding]:
    """Yield the roles that lose an attribute or a membership, and those that are dropped."""
    before, after = case.observation.access_before, case.observation.access_after
    if before is None or after is None:
        return
    # Only roles that the statements name, because another session may change the server's roles meanwhile.
    texts = " ".join(statement.sql for statement in case.observation.upgrade.statements)
    for role, had in before.roles.items():
        if role not in texts:
            continue
        lost = had - after.roles.get(role, frozenset())
        if role not in after.roles:
            yield case.found(RULE, f"the upgrade drops {role}", role=role, lost="everything")
        elif lost:
            yield case.found(RULE, f"{role} had {', '.join(sorted(had))}", role=role, lost=", ".join(sorted(lost)))
