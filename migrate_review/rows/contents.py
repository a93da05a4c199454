"""Reads the rows of tables, and compares them with earlier ones."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import identifier
from migrate_review.observation import Change

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg2.extensions import connection

    from migrate_review.observation import Catalog, Table

_NULL = "\\N"
_LONGEST_SHOWN = 40

Row = tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """A table's rows. Each value is the text that COPY writes, which is exact, and equal for equal values.

    ``key`` are the columns of its primary key, if it has one. ``documents`` are its JSON columns.
    """

    columns: tuple[str, ...]
    key: tuple[str, ...]
    rows: tuple[Row, ...]
    documents: frozenset[str] = frozenset()


def read(opened: connection, catalog: Catalog) -> dict[str, Contents]:
    """Return the rows of every table by its name. The rows of a partition belong to its partitioned table."""
    partitions = {
        name.removeprefix("table settings ")
        for name, settings in catalog.others.items()
        if name.startswith("table settings ") and ("FOR VALUES" in settings or settings.startswith("DEFAULT"))
    }
    return {table.name: _contents(opened, catalog, table) for table in catalog.tables if table.name not in partitions}


def _contents(opened: connection, catalog: Catalog, table: Table) -> Contents:
    # A virtual column has no values, and computing them may fail.
    columns = tuple(column.name for column in table.columns if not catalog.is_virtual(table.name, column.name))
    key = next((constraint.columns for constraint in table.constraints if constraint.kind == "p"), ())
    documents = frozenset(column.name for column in table.columns if column.type in {"json", "jsonb"})
    return Contents(columns, key, copied(opened, table.name, columns), documents)


def copied(opened: connection, table: str, columns: Sequence[str]) -> tuple[Row, ...]:
    """Return every row of a table, with these columns."""
    text = StringIO()
    names = ", ".join(identifier(column) for column in columns)
    partitioned = "(SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%s))"
    with opened.cursor() as cursor:
        cursor.execute(f"SELECT {partitioned}", (table,))
        # ONLY leaves out the rows of tables that inherit from this one.
        only = "" if cursor.fetchone() == (True,) else "ONLY "
        cursor.copy_expert(f"COPY (SELECT {names} FROM {only}{table}) TO STDOUT", text)  # noqa: S608 - quoted names
    lines = text.getvalue().split("\n")[:-1]
    return tuple(tuple(line.split("\t")) if columns else () for line in lines)


def counts(opened: connection, tables: Sequence[str]) -> dict[str, int]:
    """Return the number of rows in each of these tables."""
    found = {}
    with opened.cursor() as cursor:
        for table in tables:
            cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - quoted names
            [(found[table],)] = cursor.fetchall()
    return found


def changes(before: Mapping[str, Contents], now: Mapping[str, Contents]) -> tuple[Change, ...]:
    """Return the changes of the rows, for the tables and columns that existed before."""
    found = (_change(name, old, now.get(name)) for name, old in before.items() if old.rows or name in now)
    return tuple(change for change in found if change is not None)


def _change(name: str, old: Contents, new: Contents | None) -> Change | None:
    if new is None:
        return Change(name, len(old.rows), len(old.rows), 0, {}, "the table is gone")
    kept = [column for column in old.columns if column in new.columns]
    changed: Counter[str] = Counter()
    examples: list[str] = []
    of_columns: dict[str, str] = {}
    for column in old.columns:
        if column not in new.columns:
            had = [row for row in _picked(old, [column]) if row != (_NULL,)]
            if had:
                changed[column] = len(had)
                of_columns[column] = f"{column}: {shown(had[0][0])} is gone with the column"
    if old.key and all(column in kept for column in old.key):
        lost, added = _by_key(old, new, kept, changed, of_columns, examples)
    else:
        lost, added = _by_value(_picked(old, kept), _picked(new, kept), kept, changed, of_columns, examples)
    if not (lost or added or changed):
        return None
    example = next(iter((*of_columns.values(), *examples)))
    return Change(name, len(old.rows), lost, added, dict(changed), example, of_columns)


def _picked(contents: Contents, columns: Sequence[str]) -> list[Row]:
    places = [contents.columns.index(column) for column in columns]
    return [tuple(row[place] for place in places) for row in contents.rows]


def _by_key(
    old: Contents,
    new: Contents,
    kept: Sequence[str],
    changed: Counter[str],
    of_columns: dict[str, str],
    examples: list[str],
) -> tuple[int, int]:
    was, is_now = (
        dict(zip(_picked(contents, old.key), _picked(contents, kept), strict=True)) for contents in (old, new)
    )
    gone = [key for key in was if key not in is_now]
    added = [key for key in is_now if key not in was]
    for key, row in was.items():
        for column, value, now in zip(kept, row, is_now.get(key, row), strict=True):
            # A NULL cannot be lost, for instance when a new column is filled.
            if value not in (now, _NULL) and not (column in old.documents and _is_same_document(value, now)):
                if not changed[column]:
                    of_columns[column] = f"{_shown_row(old.key, key)}: {column} {shown(value)} became {shown(now)}"
                changed[column] += 1
    examples.extend(f"{_shown_row(old.key, key)} is gone" for key in gone[:1])
    examples.extend(f"{_shown_row(old.key, key)} is new" for key in added[:1])
    return len(gone), len(added)


def _is_same_document(value: str, now: str) -> bool:
    """Return whether JSON documents differ in spaces and the order of keys only, as after a round trip to jsonb."""
    try:
        return bool(json.loads(text_of(value) or "") == json.loads(text_of(now) or ""))
    except ValueError:
        return False


def _by_value(
    was: list[Row],
    is_now: list[Row],
    kept: Sequence[str],
    changed: Counter[str],
    of_columns: dict[str, str],
    examples: list[str],
) -> tuple[int, int]:
    """Return the number of lost and new rows. Without a key, a changed row counts as both.

    If the numbers of new and lost rows are equal, and a column has the same values in both, the rows count as changed
    in the other columns.
    """
    gone, added = Counter(was) - Counter(is_now), Counter(is_now) - Counter(was)
    lost_values = [
        Counter(row[place] for row in gone.elements()) - Counter(row[place] for row in added.elements())
        for place in range(len(kept))
    ]
    if gone.total() == added.total() and any(lost_values) and not all(lost_values):
        for column, values in zip(kept, lost_values, strict=True):
            del values[_NULL]
            if values:
                changed[column] = values.total()
                of_columns[column] = f"{column}: {shown(next(iter(values)))} is gone"
        return 0, 0
    examples.extend(f"the row {_shown_row(kept, row)} is gone" for row in [*gone][:1])
    examples.extend(f"the row {_shown_row(kept, row)} is new" for row in [*added][:1])
    return gone.total(), added.total()


def _shown_row(columns: Sequence[str], values: Row) -> str:
    return ", ".join(f"{column}={shown(value)}" for column, value in zip(columns, values, strict=True))


_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def text_of(value: str) -> str | None:
    """Return a value from COPY as text, None for NULL."""
    if value == _NULL:
        return None
    return _ESCAPED.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), value)


def shown(value: str) -> str:
    """Return a value from COPY for a message: a number unchanged, other text in quotes and shortened."""
    if value == _NULL:
        return "NULL"
    if value.lstrip("-").replace(".", "", 1).isdigit():
        return value
    short = value if len(value) <= _LONGEST_SHOWN else f"{value[: _LONGEST_SHOWN - 3]}..."
    return f"'{short}'"
