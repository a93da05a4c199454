"""Makes the measurements of a revision for ``reviewed.json``. docs/review.md describes the fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.lock_modes import WRITE, blocks, shown_mode, strongest
from lambda_migrate.database.preflight_queries import uses
from lambda_migrate.database.schema import fingerprint
from migrate_review.observation import is_share
from migrate_review.rules import difference, row_changes
from migrate_review.rules.violations import checks, conversions
from migrate_review.sql_text import unqualified

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_review.observation import Observation, Statement

_NAME = r"(?:\"(?:[^\"]|\"\")+\"|[\w$]+)"
# Excludes the UPDATE in the action of a foreign key or a trigger, and in FOR UPDATE.
_CHANGES_ROWS = re.compile(
    r"(?<!\bon )(?<!\bof )(?<!\bfor )(?<!\bbefore )(?<!\bafter )(?<!\bor )(?<!\bno key )"
    r"\b(?:update|delete from|insert into|merge into|truncate(?: table)?|copy) (?:only )?"
    rf"(?P<table>{_NAME}(?:\.{_NAME})?)",
    re.IGNORECASE,
)
_CALLS = re.compile(r"\s*(?:call|perform|select (?!.*\bfrom\b))\b", re.IGNORECASE | re.DOTALL)
_MAKES_INDEX = re.compile(
    r"\b(?:create (?:unique )?index|reindex|primary key|unique|exclude)\b(?! using index)", re.IGNORECASE
)
_FOREIGN_KEY = re.compile(r"\b(?:foreign key|references)\b", re.IGNORECASE)
# The effects on referring rows of a change of the referenced rows.
_CASCADES = re.compile(r"\bON (?:DELETE|UPDATE) (?:CASCADE|SET (?:NULL|DEFAULT))")
_DEPTH = 4
_VALIDATES = re.compile(rf"\bvalidate constraint (?P<name>{_NAME})", re.IGNORECASE)


def facts(observation: Observation) -> dict[str, Any] | None:
    """Return the facts of a revision, or None if it did not run."""
    if observation.after is None or observation.schema_before is None or observation.schema_after is None:
        return None
    changed = _changed(observation) | set(_with_other_parts(observation))
    schema = _schema(observation.schema_before, observation.schema_after)
    return {
        "tables": [*_tables(observation)],
        "work": [work for statement in observation.upgrade.statements for work in _work(statement, observation)],
        "checks": [
            {
                "check": each.kind,
                "table": each.table,
                "columns": list(each.columns),
                "name": each.name,
                "query": each.query,
                "reads": list(each.reads),
                "changed_before": bool(changed.intersection(each.reads))
                or (each.query is not None and uses(each.query, schema["changed"])),
            }
            for each in checks(observation)
        ],
        "changes": sorted(changed | set(_under_another_name(observation))),
        "unchecked": sorted(row_changes.dependent(observation)),
        "changed_columns": [[table, column] for table, column in _changed_columns(observation)],
        "schema": schema,
    }


def _tables(observation: Observation) -> Iterator[dict[str, Any]]:
    """Yield each table that the upgrade locks, with the work on it and on others while the lock is held."""
    statements = observation.upgrade.statements
    held: dict[str, set[str]] = {}
    meanwhile: dict[str, dict[str, set[str]]] = {}
    works: dict[str, list[dict[str, Any]]] = {}
    open_locks: set[str] = set()
    for statement in statements:
        if statement.begins_without_locks:
            open_locks = set()
        for lock in statement.locks:
            held.setdefault(lock.table, set()).add(lock.mode)
            open_locks.add(lock.table)
        for table in open_locks:
            work = meanwhile.setdefault(table, {"reads": set(), "rewrites": set()})
            work["reads"].update(statement.scanned)
            work["rewrites"].update(statement.rewritten)
            works.setdefault(table, []).extend(_work(statement, observation))
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
            "while_locked": {
                **{what: sorted(tables) for what, tables in meanwhile[table].items()},
                "work": works[table],
            },
        }


def _work(statement: Statement, observation: Observation) -> Iterator[dict[str, Any]]:
    """Yield the work of a statement on whole tables: its ``kind``, and the ``share`` of the rows that it changes."""
    sql = " ".join(statement.sql.split())
    for table in dict.fromkeys((*statement.rewritten, *statement.changed, *statement.scanned)):
        rows = observation.rows.get(table, 0)
        share = 1.0
        if table in statement.rewritten:
            kind = "rewrite"
        elif table in statement.changed:
            kind, share = "change", min(1.0, statement.changed[table] / rows) if rows else 1.0
            if table not in statement.scanned and not is_share(statement.changed[table], rows):
                continue  # it looks up keys, so its work does not grow with the table
        else:
            kind = _kind_of_reading(sql, observation)
        yield {"table": table, "kind": kind, "share": round(share, 3)}


def _kind_of_reading(sql: str, observation: Observation) -> str:
    validated = {found["name"].strip('"') for found in _VALIDATES.finditer(sql)}
    kinds = {each.kind for table in observation.before.tables for each in table.constraints if each.name in validated}
    if _FOREIGN_KEY.search(sql) or "f" in kinds:
        return "foreign_key"
    return "index" if _MAKES_INDEX.search(sql) else "scan"


def _changed(observation: Observation) -> set[str]:
    """Return the tables whose rows the upgrade changes. Checks of their rows before the upgrade prove little.

    If a table counts, its partitions count, too, and the reverse.
    """
    statements = observation.upgrade.statements
    known = {table.name for table in observation.before.tables}
    held: set[str] = set()
    found: set[str] = set()
    for statement in statements:
        held = set() if statement.begins_without_locks else held
        held |= {lock.table for lock in statement.locks}
        found |= _written(statement, known, held)
    family = [(parent, child) for child, parent in difference.parents(observation.before).items()]
    cascades = [
        (constraint.references, table.name)
        for table in observation.before.tables
        for constraint in table.constraints
        if constraint.references and _CASCADES.search(constraint.definition)
    ]
    # Partitions and cascades are rarely nested deeper than this.
    for _ in range(_DEPTH):
        found |= {each for pair in family if found.intersection(pair) for each in pair}
        found |= {child for parent, child in cascades if parent in found}
    return found


def _with_other_parts(observation: Observation) -> Iterator[str]:
    """Yield the tables that get or lose partitions or inheriting tables with their rows."""
    assert observation.after is not None  # noqa: S101 - of a revision that ran
    names = {table.name for table in observation.before.tables}
    was, now = (set(difference.heirs(catalog)) for catalog in (observation.before, observation.after))
    yield from {owner for owner, heir in was ^ now if owner in names and heir in names}


def _under_another_name(observation: Observation) -> Iterator[str]:
    """Yield the names that belong to another table after the revision."""
    assert observation.after is not None  # noqa: S101 - of a revision that ran
    for table in observation.before.tables:
        now = observation.after.table_named(table.name)
        if now is not None and now.oid != table.oid:
            yield table.name


def _changed_columns(observation: Observation) -> Iterator[tuple[str, str]]:
    """Yield the columns with other values after the revision: converted ones, and those that another one replaces."""
    assert observation.after is not None  # noqa: S101 - of a revision that ran
    for was, now in difference.kept_tables(observation.before, observation.after):
        names = {column.name: column.number for column in was.columns}
        converted = conversions(was, now, observation)
        for column in now.columns:
            if column.name in converted or names.get(column.name, column.number) != column.number:
                yield now.name, column.name


def _written(statement: Statement, known: set[str], held: set[str]) -> set[str]:
    locked = {lock.table for lock in statement.locks if lock.mode == WRITE} | set(statement.changed)
    sql = " ".join(statement.sql.split())
    named = {unqualified(found["table"]) for found in _CHANGES_ROWS.finditer(sql)}
    # A call does not show the tables that the function changes, and a lock that is already held is not listed again.
    called = held if _CALLS.match(sql) else set()
    return locked | called | {table for table in known if unqualified(table) in named}


def _schema(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Any]:
    names = sorted(before.keys() | after.keys())
    changed = {name: after.get(name) for name in names if before.get(name) != after.get(name)}
    return {"before": fingerprint(before), "after": fingerprint(after), "changed": changed}
