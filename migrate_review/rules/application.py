"""Checks of the writes that were tried after the revision, as the running application makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrate_review.observation import REFUSED_ROWS
from migrate_review.rules.compatibility import required_columns
from migrate_review.rules.rulebook import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.rules.case import Case
    from migrate_review.rules.findings import Finding

_NOT_NULL_VIOLATION = "23502"
_UNIQUE_VIOLATION = "23505"
_REFERRED_TO = {"23503", "23001"}
_GENERATED_ALWAYS = "428C9"


def writes(case: Case) -> Iterator[Finding]:
    """Yield the tables whose writes now fail, and those whose writes now read whole tables."""
    explained = {found.message for found in required_columns(case)}
    failing: set[tuple[str, str | None]] = set()
    for write in case.observation.writes:
        for other, count in write.reads.items():
            evidence = f"one {write.kind} of {write.table} read {count} rows of {other}"
            yield case.found(RULES["writes-read-table"], evidence, table=write.table, kind=write.kind, other=other)
        if (
            write.failure is None
            or (write.table, write.failure) in failing
            or _has_its_own_rule(write.sqlstate, write.function)
        ):
            continue
        if write.kind == "DELETE" and write.sqlstate in _REFERRED_TO:
            continue  # other rows refer to the row, which is allowed
        if (
            write.sqlstate == _NOT_NULL_VIOLATION
            and not write.function
            and any(write.table in message for message in explained)
        ):
            continue
        failing.add((write.table, write.failure))
        evidence = f"{write.kind} of existing rows, rolled back: {write.failure}"
        yield case.found(RULES["writes-fail"], evidence, table=write.table, kind=write.kind, failure=write.failure)


def _has_its_own_rule(sqlstate: str | None, function: bool) -> bool:  # noqa: FBT001 - of the failure
    """Return whether another rule reports the failure: a value of the wrong type, or a number that a row has."""
    state = sqlstate or ""
    return not function and (state.startswith(REFUSED_ROWS[0]) or state in {_UNIQUE_VIOLATION, _GENERATED_ALWAYS})
