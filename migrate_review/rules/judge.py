"""Lists the checks. Each yields the findings of a few rules on one revision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.rules import compatibility, downgrade, keys, locks, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    downgrade.failures,
    locks.work_that_others_wait_for,
    locks.backfills,
    locks.indexes_dropped,
    locks.commits_in_between,
    compatibility.tables_and_columns_gone,
    compatibility.renames,
    compatibility.required_columns,
    compatibility.enum_values,
    compatibility.as_squawk_says,
    downgrade.downgrades,
    downgrade.repetition,
    downgrade.data,
    keys.foreign_keys_without_index,
    keys.duplicate_indexes,
    keys.names,
    keys.new_tables_and_columns,
    sources.imports,
    sources.nothing_done,
)


def judge(case: Case) -> tuple[Finding, ...]:
    """Return the findings of every check on one revision, each finding once."""
    return tuple(dict.fromkeys(found for check in CHECKS for found in check(case)))
