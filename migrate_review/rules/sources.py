"""Checks that need only a revision's source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules.rulebook import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding


# A module for revisions, which does not change with the application.
_FOR_REVISIONS = frozenset({"backfill"})


def imports(case: Case) -> Iterator[Finding]:
    """Yield the backend's own modules that the revision imports."""
    for module, line in case.revision.imports_of_backend:
        if module in _FOR_REVISIONS:
            continue
        evidence = f"{case.revision.path.name}, line {line}"
        yield case.found(RULES["imports-application"], evidence, module=module)


def nothing_done(case: Case) -> Iterator[Finding]:
    """Yield a finding if the upgrade is empty, unless the revision merges branches or labels one."""
    revision = case.revision
    if case.observation.upgrade.empty and len(revision.down_revisions) < 2 and not revision.labelled:  # noqa: PLR2004 - a merge has several
        yield case.found(RULES["upgrade-empty"], f"upgrade() of {revision.path.name} has no statement")
