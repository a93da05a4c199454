"""What was measured of a revision, as ``reviewed.json`` holds it for later steps; docs/review.md has the fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.schema import fingerprint
from migrate_review.lock_modes import WRITE, blocks, shown_mode, strongest
from migrate_review.rules.violations import checks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_review.observation import Observation, Statement

_CHANGES_ROWS = re.compile(r"\b(update|delete\s+from|insert\s+into|merge\s+into|truncate)\b", re.IGNORECASE)


def facts(observation: Observation) -> dict[str, Any] | None:
    """Return the facts of a revision, None if it did not run."""
    if observation.after is None or observation.schema_before is None or observation.schema_after is None:
        return None
    changed = _changed(observation)
    return {
        "tables": [*_tables(observation)],
        "checks": [
            {
                "check": each.kind,
                "table": each.table,
                "columns": list(each.columns),
                "name": each.name,
                "query": each.query,
                "changed_before": each.table in changed,
            }
            for each in checks(observation)
        ],
        "changes": sorted(changed),
        "schema": _schema(observation.schema_before, observation.schema_after),
    }


def _tables(observation: Observation) -> Iterator[dict[str, Any]]:
    """Yield each table that the upgrade locks, with what happens to it and to others while the lock is held."""
    statements = observation.upgrade.statements
    held: dict[str, set[str]] = {}
    meanwhile: dict[str, dict[str, set[str]]] = {}
    open_locks: set[str] = set()
    for statement in statements:
        if not statement.in_transaction:
            open_locks = set()
        for lock in statement.locks:
            held.setdefault(lock.table, set()).add(lock.mode)
            open_locks.add(lock.table)
        for table in open_locks:
            work = meanwhile.setdefault(table, {"reads": set(), "rewrites": set()})
            work["reads"].update(statement.scanned)
            work["rewrites"].update(statement.rewritten)
        if not statement.in_transaction:
            open_locks = set()
    read, rewritten = (
        {table for statement in statements for table in getattr(statement, what)} for what in ("scanned", "rewritten")
    )
    for table, modes in sorted(held.items()):
        yield {
            "table": table,
            "lock": shown_mode(strongest(modes)),
            "blocks": blocks(modes) or "nothing",
            "reads_all": table in read,
            "rewrites": table in rewritten,
            "while_locked": {what: sorted(tables) for what, tables in meanwhile[table].items()},
        }


def _changed(observation: Observation) -> set[str]:
    """Return the tables whose rows the upgrade itself changes, so that rows of before say little."""
    return {table for statement in observation.upgrade.statements for table in _written(statement)}


def _written(statement: Statement) -> set[str]:
    locked = {lock.table for lock in statement.locks if lock.mode == WRITE} | set(statement.changed)
    named = {lock.table for lock in statement.locks} | set(statement.scanned)
    return locked | (named if _CHANGES_ROWS.search(statement.sql) else set())


def _schema(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Any]:
    names = sorted(before.keys() | after.keys())
    changed = {name: after.get(name) for name in names if before.get(name) != after.get(name)}
    return {"before": fingerprint(before), "after": fingerprint(after), "changed": changed}
