"""Puts values into rows that only the schema after a revision allows, for its downgrade to meet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg2

from migrate_review.rows.contents import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

    from migrate_review.observation import Catalog, Column, Table

_LONGER = 300
_TEXT = re.compile(r"text|character varying(?:\((\d+)\))?")
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")


def use_what_is_new(opened: connection, before: Catalog, after: Catalog) -> bool:
    """Change one row for each new label, longer or larger value, NULL and duplicate. Return whether any was changed."""
    changed = 0
    with opened.cursor() as cursor:
        for table, assignment in _assignments(before, after):
            one = f"(SELECT min(ctid) FROM {table})"  # noqa: S608 - quoted names
            try:
                cursor.execute(f"UPDATE {table} SET {assignment} WHERE ctid = {one}")  # noqa: S608 - quoted names
                changed += cursor.rowcount
            except psycopg2.Error:
                continue  # another constraint forbids it
    return changed > 0


def _assignments(before: Catalog, after: Catalog) -> Iterator[tuple[str, str]]:
    """Yield a table and an assignment for each value that the new schema allows and the old one does not."""
    for was in before.tables:
        now = after.table(was.oid)
        if now is None:
            continue
        old = {column.number: column for column in was.columns}
        for column in now.columns:
            if column.number in old and not column.generated:
                name = quoted(column.name)
                yield from (
                    (now.name, f"{name} = {value}") for value in _values(old[column.number], column, before, after)
                )
        yield from ((now.name, assignment) for assignment in _duplicates(was, now))


def _values(was: Column, now: Column, before: Catalog, after: Catalog) -> Iterator[str]:
    labels = {label for _, label in before.enums.get(was.type, ())}
    yield from (_literal(label) for _, label in after.enums.get(now.type, ()) if labels and label not in labels)
    if was.not_null and not now.not_null:
        yield "NULL"
    if was.type == now.type:
        return
    text, numeric = _TEXT.fullmatch(now.type), _NUMERIC.fullmatch(now.type)
    if text and _TEXT.fullmatch(was.type):
        yield f"repeat('x', {text[1] or _LONGER})"
    elif now.type == "bigint":
        yield "3000000000"
    elif numeric:
        yield "9" * (int(numeric[1]) - int(numeric[2]))


def _duplicates(was: Table, now: Table) -> Iterator[str]:
    """Yield an assignment that repeats another row's values in columns that are not unique any more."""
    names = {column.name for column in now.columns}
    unique = {frozenset(index.columns) for index in now.indexes if index.unique and not index.partial}
    for index in was.indexes:
        columns = frozenset(index.columns)
        if index.unique and not index.partial and columns and columns <= names and columns not in unique:
            listed = ", ".join(quoted(column) for column in index.columns)
            yield f"({listed}) = (SELECT {listed} FROM {now.name} ORDER BY ctid DESC LIMIT 1)"  # noqa: S608


def _literal(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"
