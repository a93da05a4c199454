"""Updates rows to values that only the schema after a revision allows, to test its downgrade with them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg2

from lambda_migrate.database.qualified import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

    from migrate_review.observation import Catalog, Column, Table

_LONGER = 300
_TEXT = re.compile(r"text|character varying(?:\((\d+)\))?")
_CHECK = re.compile(r"CHECK \((.*)\)(?: NO INHERIT)?(?: NOT VALID)?", re.DOTALL)
_LITERAL_TEXT = re.compile(r"'((?:[^']|'')*)'")
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")


# Values that a check may have refused, by the first word of the type.
_REFUSED = {
    "smallint": ("-1", "0", "32000"), "integer": ("-1", "0", "2000000000"), "bigint": ("-1", "0", "3000000000"),
    "numeric": ("-1", "0", "100000"), "real": ("-1", "0", "1e9"), "double": ("-1", "0", "1e9"),
    "text": ("", "x", "no such value"), "character": ("", "x", "no such value"),
    "date": ("1900-01-01", "2999-12-31"), "timestamp": ("1900-01-01", "2999-12-31"), "boolean": ("false", "true"),
}  # fmt: skip
_ORPHANS = {
    "smallint": "32001", "integer": "2000000001", "bigint": "3000000001",
    "uuid": "00000000-0000-4000-8000-000000000001", "text": "no such key", "character": "no such key",
}  # fmt: skip


def use_what_is_new(opened: connection, before: Catalog, after: Catalog) -> bool:
    """Change one row for each value that only the new schema allows. Return whether any was changed.

    These are new labels, longer or larger values, NULL, duplicates, orphans, and what a check refused.
    """
    changed = 0
    with opened.cursor() as cursor:
        for table, assignment in _assignments(before, after):
            one = f"(SELECT min(ctid) FROM {table})"  # noqa: S608 - quoted names
            try:
                cursor.execute(f"UPDATE {table} SET {assignment} WHERE ctid = {one}")  # noqa: S608 - quoted names
                changed += cursor.rowcount
            except psycopg2.Error:
                continue  # another constraint forbids it
        for update in _refused_by_checks(before, after):
            try:
                cursor.execute(update)
                changed += cursor.rowcount
            except psycopg2.Error:
                continue
    return changed > 0


def _refused_by_checks(before: Catalog, after: Catalog) -> Iterator[str]:
    """Yield updates that give one row a value that a former check refuses."""
    for was in before.tables:
        now = after.table(was.oid) or was
        for column, check in _single_checks_gone(was, now):
            mentioned = (
                text
                for constraint in now.constraints
                if constraint.kind == "c" and constraint.columns == (column.name,)
                for text in _LITERAL_TEXT.findall(constraint.definition)
            )
            values = dict.fromkeys((*mentioned, *_REFUSED.get(column.type.partition("(")[0].split()[0], ())))
            name = identifier(column.name)
            for value in values:
                # The check is written with the column's name, which here is the value's.
                yield (
                    f"UPDATE {now.name} SET {name} = value.{name}"  # noqa: S608 - quoted names
                    f" FROM (SELECT {literal(value)}::{column.type} AS {name}) AS value"
                    f" WHERE {now.name}.ctid = (SELECT min(ctid) FROM {now.name})"
                    f" AND NOT (SELECT ({check}) FROM (SELECT value.{name}) AS each)"
                )


def _single_checks_gone(was: Table, now: Table) -> Iterator[tuple[Column, str]]:
    """Yield the dropped checks of one column, each with the column and the check's expression."""
    kept = {constraint.definition for constraint in now.constraints}
    columns = {column.name: column for column in now.columns}
    for constraint in was.constraints:
        if constraint.kind == "c" and constraint.definition not in kept and len(constraint.columns) == 1:
            expression = _CHECK.match(constraint.definition)
            column = columns.get(constraint.columns[0])
            if expression and column is not None and not column.generated:
                yield column, expression[1]


def _assignments(before: Catalog, after: Catalog) -> Iterator[tuple[str, str]]:
    """Yield a table and an assignment for each value that the new schema allows and the old one does not."""
    for was in before.tables:
        now = after.table(was.oid)
        if now is None:
            continue
        old = {column.number: column for column in was.columns}
        for column in now.columns:
            if column.number in old and not column.generated:
                name = identifier(column.name)
                yield from (
                    (now.name, f"{name} = {value}") for value in _values(old[column.number], column, before, after)
                )
        yield from ((now.name, assignment) for assignment in _duplicates(was, now))
        yield from ((now.name, assignment) for assignment in _orphans(was, now, after))


def _values(was: Column, now: Column, before: Catalog, after: Catalog) -> Iterator[str]:
    labels = {label for _, label in before.enums.get(was.type, ())}
    yield from (literal(label) for _, label in after.enums.get(now.type, ()) if labels and label not in labels)
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
    """Yield an assignment of another row's values to columns that are no longer unique."""
    names = {column.name for column in now.columns}
    unique = {frozenset(index.columns) for index in now.indexes if index.unique and not index.partial}
    for index in was.indexes:
        columns = frozenset(index.columns)
        if index.unique and not index.partial and columns and columns <= names and columns not in unique:
            listed = ", ".join(identifier(column) for column in index.columns)
            yield f"({listed}) = (SELECT {listed} FROM {now.name} ORDER BY ctid DESC LIMIT 1)"  # noqa: S608


def _orphans(was: Table, now: Table, after: Catalog) -> Iterator[str]:
    """Yield an assignment of a key that does not exist, for each dropped foreign key."""
    kept = {(constraint.columns, constraint.references) for constraint in now.constraints if constraint.kind == "f"}
    columns = {column.name: column for column in now.columns}
    for constraint in was.constraints:
        known = after.table_named(constraint.references or "") is not None
        if constraint.kind != "f" or (constraint.columns, constraint.references) in kept or not known:
            continue
        column = columns.get(constraint.columns[0]) if len(constraint.columns) == 1 else None
        orphan = _ORPHANS.get(column.type.partition("(")[0].split()[0]) if column is not None else None
        if column is not None and orphan is not None:
            yield f"{identifier(column.name)} = {literal(orphan)}"
