"""Lists the checks. Each yields the findings of a few rules on one revision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules import application, compatibility, difference, downgrade, keys, locks, sources, unmeasured
from migrate_review.rules.book import not_measured
from migrate_review.rules.rulebook import CHECKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding
    from migrate_review.rules.rulebook import Check

_CHECKS: tuple[Check, ...] = (
    downgrade.failures,
    locks.work_that_others_wait_for,
    locks.locks_held_meanwhile,
    locks.backfills,
    locks.rows_locked,
    locks.indexes_dropped,
    locks.commits_in_between,
    compatibility.tables_and_columns_gone,
    compatibility.renames,
    compatibility.required_columns,
    compatibility.enum_values,
    compatibility.squawk_remarks,
    compatibility.objects_gone,
    application.writes,
    downgrade.downgrades,
    downgrade.downgrade_on_data,
    downgrade.repetition,
    downgrade.data,
    keys.foreign_keys_without_index,
    keys.duplicate_indexes,
    keys.names,
    keys.new_tables_and_columns,
    keys.keys_made_wider,
    sources.imports,
    sources.nothing_done,
    *CHECKS,
)

# Checks for a revision that could not run. They need only its source and its rendered SQL.
_STATIC: tuple[Check, ...] = (
    not_measured.check,
    unmeasured.squawk_remarks,
    downgrade.missing,
    sources.imports,
    sources.nothing_done,
)


def judge(case: Case) -> tuple[Finding, ...]:
    """Return the findings of every check on one revision, each finding once."""
    checks = _STATIC if case.observation.upgrade.rendered else _CHECKS
    return _without_partitions(case, dict.fromkeys(found for check in checks for found in check(case)))


def _without_partitions(case: Case, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings without findings on partitions that repeat one on their parent."""
    several = tuple(findings)
    parents = difference.parents(case.observation.before)
    if case.observation.after is not None:
        parents |= difference.parents(case.observation.after)
    known = {(found.rule, found.message) for found in several}

    def is_repeated(found: Finding) -> bool:
        return any(
            name in found.message and (found.rule, found.message.replace(name, parent)) in known
            for name, parent in parents.items()
        )

    return tuple(found for found in several if not is_repeated(found))
