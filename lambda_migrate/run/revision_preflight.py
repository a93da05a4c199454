"""Compares one revision with the rows and sizes in a database, and decides its verdict."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2

from lambda_migrate.database.estimate import CAUTION, work_of
from lambda_migrate.database.preflight_queries import uses

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from lambda_migrate.database.preflight_queries import PreflightQueries

# The reviewer's rules about a problem: the upgrade fails on rows, or it blocks the application.
_RULES: Mapping[str, frozenset[str]] = {
    "fails": frozenset({"upgrade-depends-on-data", "adding-required-field"}),
    "slow": frozenset({
        "adding-field-with-default", "adding-foreign-key-constraint", "adding-not-nullable-field",
        "adding-required-field", "adding-serial-primary-key-field", "backfill-in-one-transaction",
        "ban-alter-domain-with-add-constraint", "changing-column-type", "constraint-missing-not-valid",
        "disallowed-unique-constraint", "lock-held-during-other-work", "refresh-not-concurrent",
        "require-concurrent-index-creation", "require-concurrent-reindex", "scan-while-locked", "table-rewrite",
    }),
}  # fmt: skip


@dataclass(frozen=True)
class Preflight:
    """The preflight of a revision. The entries are as docs/contract.md has them below ``preflight``.

    ``max_block_ms`` is how long a revision may block a table. ``acknowledged_rules`` are those of the revision's
    findings, each with its author's reason, or None. ``is_complete`` is false if something could not be measured.
    """

    tables: Sequence[Mapping[str, Any]]
    checks: Sequence[Mapping[str, Any]]
    blockers: Sequence[Mapping[str, Any]]
    estimated_ms: Sequence[int] | None
    unchecked: Sequence[str]
    max_block_ms: float
    acknowledged_rules: Mapping[str, str | None]
    is_complete: bool

    @property
    def failed_checks(self) -> list[Mapping[str, Any]]:
        """The checks that rows violate."""
        return [check for check in self.checks if check["result"] == "failed"]

    @property
    def longest_block(self) -> Mapping[str, Any] | None:
        """The table that is blocked longest, None if none is blocked for longer than allowed."""
        blocked = [
            table
            for table in self.tables
            if table["blocks"] != "nothing" and (table["estimated_ms"] or 0) > self.max_block_ms
        ]
        return max(blocked, key=lambda table: table["estimated_ms"], default=None)

    @property
    def problems(self) -> list[str]:
        """The problems of the revision: ``fails``, ``slow``, both or none."""
        return [
            *(["fails"] if self.failed_checks else []),
            *(["slow"] if self.longest_block is not None else []),
        ]

    @property
    def verdict(self) -> str:
        """The worse problem, otherwise ``ok``, or ``unknown`` if something could not be measured."""
        return next(iter(self.problems), "ok" if self.is_complete else "unknown")

    @property
    def acknowledged(self) -> dict[str, str]:
        """The problems that the revision's author acknowledged, each with the reason."""
        found = {}
        for problem in self.problems:
            reasons = [reason for rule, reason in self.acknowledged_rules.items() if rule in _RULES[problem]]
            if reasons and reasons[0] and all(reasons):
                found[problem] = reasons[0]
        return found

    def entry(self) -> dict[str, Any]:
        """Return ``preflight`` as docs/contract.md has it."""
        return {
            "verdict": self.verdict,
            "tables": list(self.tables),
            "checks": list(self.checks),
            "blockers": list(self.blockers),
            "estimated_ms": self.estimated_ms,
            **({"unchecked": list(self.unchecked)} if self.unchecked else {}),
            "acknowledged": self.acknowledged,
        }


def preflight_of(
    queries: PreflightQueries,
    facts: Mapping[str, Any],
    earlier: Collection[Mapping[str, Any] | None],
    max_block_s: float,
    acknowledged_rules: Mapping[str, str | None],
) -> Preflight:
    """Return what a revision will meet in the database.

    ``facts`` is what the reviewer measured. ``earlier`` is the same of the revisions that are pending before it, None
    for one that was not recorded. If these make, alter or change a table, a check of it may have another result when
    the revision runs.
    """
    recorded = [each for each in earlier if each is not None]
    try:
        queries.expect(_altered_tables(recorded))
        tables = [_table(queries, fact) for fact in facts["tables"]]
        checks = [_check(queries, check, recorded) for check in facts["checks"]]
    except psycopg2.Error:
        # A missing privilege, for example. A look must not keep a migration from running.
        return Preflight([], [], [], None, (), max_block_s * 1000, acknowledged_rules, is_complete=False)
    try:
        blockers = queries.blockers({table["table"]: table["lock"] for table in tables})
    except psycopg2.Error:
        # The counts are valid without the blockers.
        blockers = []
    unchecked = facts.get("unchecked") or ()
    # The effect of a revision without a record on the rows is unknown.
    depends_on_unrecorded = bool(checks) and None in earlier
    return Preflight(
        tables,
        checks,
        blockers,
        _range(queries, facts),
        unchecked,
        max_block_s * 1000,
        acknowledged_rules,
        is_complete=not (
            unchecked
            or depends_on_unrecorded
            or any(table["estimated_ms"] is None for table in tables)
            or any(check["result"] in {"timed_out", "depends_on_pending"} or "sampled" in check for check in checks)
        ),
    )


def _range(queries: PreflightQueries, facts: Mapping[str, Any]) -> list[int] | None:
    """Return the shortest and the longest time that the whole revision is expected to take."""
    try:
        middle = queries.milliseconds(facts["work"]) if "work" in facts else None
    except psycopg2.Error:
        return None
    return [round(middle / CAUTION), round(middle * CAUTION)] if middle is not None else None


def _table(queries: PreflightQueries, fact: Mapping[str, Any]) -> dict[str, Any]:
    try:
        size = queries.size(fact["table"])
        middle = queries.milliseconds(work_of(fact)) if size is not None else None
    except psycopg2.Error:
        size = middle = None
    return {
        "table": fact["table"],
        "rows": size.rows if size is not None else None,
        "bytes": size.bytes if size is not None else None,
        "lock": fact["lock"],
        "blocks": fact["blocks"],
        "reads_all": fact["reads_all"],
        "rewrites": fact["rewrites"],
        "estimated_ms": round(middle * CAUTION) if middle is not None else None,
    }


def _check(
    queries: PreflightQueries, check: Mapping[str, Any], earlier: Collection[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a check with its result. An earlier pending revision that changes the rows may change the result."""
    found: int | str = "depends_on_pending"
    share = None
    missing = any(queries.is_missing(table) for table in check.get("reads") or [check["table"]])
    if check["query"] is not None and not missing and not _depends(check, earlier):
        found, share = queries.check(check)
    result = found if isinstance(found, str) else "passed" if found == 0 else "failed"
    touched = {table["table"] for facts in earlier for table in facts["tables"]}
    if result == "timed_out" and check["table"] in touched:
        result = "depends_on_pending"
    return {
        "check": check["check"],
        "table": check["table"],
        "columns": list(check["columns"]),
        "result": result,
        "violations": found if isinstance(found, int) and result != "depends_on_pending" else None,
        "query": check["query"],
        **({"sampled": round(share, 6)} if share is not None and isinstance(found, int) else {}),
    }


def _altered_tables(earlier: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the tables that earlier pending revisions make or alter."""
    names = (name for facts in earlier for name in facts.get("schema", {}).get("changed", {}))
    return {name.removeprefix("table ") for name in names if name.startswith("table ")}


def _depends(check: Mapping[str, Any], earlier: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether the check's result may be another one when its revision runs."""
    reads = set(check.get("reads") or [check["table"]])
    query = check["query"]
    if check["changed_before"]:
        return True
    named = {f"table {table}" for table in reads}
    for column in check["columns"]:
        quoted = column.replace('"', '""')
        named |= {f"column {check['table']}.{column}", f'column {check["table"]}."{quoted}"'}
    for facts in earlier:
        altered = facts.get("schema", {}).get("changed", {})
        gone = {name for name, digest in altered.items() if digest is None}
        if reads & set(facts.get("changes", ())) or named & gone or uses(query, altered):
            return True
        if any(table in reads and _names(query, column) for table, column in facts.get("changed_columns", ())):
            return True
    return False


def _names(query: str, column: str) -> bool:
    quoted = column.replace('"', '""')
    return re.search(rf"(?<!\w){re.escape(quoted)}(?!\w)", query) is not None
