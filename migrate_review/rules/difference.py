"""Compares two schemas, and returns new, kept and dropped objects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from migrate_review.sql_text import split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrate_review.observation import Catalog, Column, Constraint, Index, Table


def kept_tables(before: Catalog, after: Catalog) -> Iterator[tuple[Table, Table]]:
    """Yield each table in both schemas, even with another name, before and after."""
    for table in before.tables:
        now = after.table(table.oid)
        if now is not None:
            yield table, now


def gone_tables(before: Catalog, after: Catalog) -> Iterator[Table]:
    """Return the dropped tables, except those that another table of the same name replaces."""
    return (
        table for table in before.tables if after.table(table.oid) is None and after.table_named(table.name) is None
    )


def new_tables(before: Catalog, after: Catalog) -> Iterator[Table]:
    """Return the tables that are new."""
    return (table for table in after.tables if before.table(table.oid) is None)


def settings_of_tables(before: Catalog, after: Catalog) -> Iterator[tuple[Table, str, str]]:
    """Yield each table of the new schema with its settings before and after. A new table had no settings."""
    for table in after.tables:
        was = before.table(table.oid)
        yield table, before.table_settings(was.name) if was is not None else "", after.table_settings(table.name)


def kept_columns(before: Table, after: Table) -> Iterator[tuple[Column, Column]]:
    """Return each column in both, even with another name, before and after."""
    now = {column.number: column for column in after.columns}
    return ((column, now[column.number]) for column in before.columns if column.number in now)


def gone_columns(before: Table, after: Table) -> Iterator[Column]:
    """Return the dropped columns."""
    numbers = {column.number for column in after.columns}
    return (column for column in before.columns if column.number not in numbers)


def new_columns(before: Catalog, after: Catalog) -> Iterator[tuple[Table, Column]]:
    """Yield the columns that are new, those of new tables included."""
    for table in after.tables:
        was = before.table(table.oid)
        known = {column.number for column in was.columns} if was else set()
        yield from ((table, column) for column in table.columns if column.number not in known)


def new_constraints(before: Catalog, after: Catalog) -> Iterator[tuple[Table, Constraint]]:
    """Yield the constraints whose name is new, without NOT NULL, which is a constraint in PostgreSQL 18."""
    for table in after.tables:
        was = before.table(table.oid)
        known = {constraint.name for constraint in was.constraints} if was else set()
        yield from (
            (table, constraint)
            for constraint in table.constraints
            if constraint.kind != "n" and constraint.name not in known
        )


def new_indexes(before: Catalog, after: Catalog) -> Iterator[tuple[Table, Index]]:
    """Yield the indexes whose name is new, those of constraints included."""
    for table in after.tables:
        was = before.table(table.oid)
        known = {index.name for index in was.indexes} if was else set()
        yield from ((table, index) for index in table.indexes if index.name not in known)


def gone_indexes(before: Catalog, after: Catalog) -> Iterator[tuple[Table, Index]]:
    """Yield the dropped indexes of tables that still exist, without those of constraints."""
    for was, now in kept_tables(before, after):
        names = {index.name for index in now.indexes}
        yield from ((now, index) for index in was.indexes if index.name not in names and not index.constraint)


def parents(catalog: Catalog) -> dict[str, str]:
    """Return the partitioned table of each partition."""
    own = partitions(catalog)
    found = ((name, _INHERITS.search(catalog.others[f"table settings {name}"])) for name in own)
    return {name: parent["table"] for name, parent in found if parent}


def heirs(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Yield each table that has partitions or heirs, with each of them."""
    for name, settings in catalog.others.items():
        found = _INHERITS_ALL.search(settings) if name.startswith("table settings ") else None
        for owner in split(found["tables"]) if found else ():
            yield owner.strip(), name.removeprefix("table settings ")


_DEFAULT = re.compile(r"(?:^|; )DEFAULT(?:;|$)")
_INHERITS = re.compile(r"(?:^|; )inherits (?P<table>[^;,]+)")
_INHERITS_ALL = re.compile(r"(?:^|; )inherits (?P<tables>[^;]+)")


def partitions(catalog: Catalog) -> set[str]:
    """Return the names of the tables that are partitions."""
    return {
        name.removeprefix("table settings ")
        for name, settings in catalog.others.items()
        if name.startswith("table settings ") and ("FOR VALUES" in settings or _DEFAULT.search(settings))
    }


def default_partitions(catalog: Catalog) -> set[str]:
    """Return the names of the tables that are default partitions."""
    return {name for name in partitions(catalog) if _DEFAULT.search(catalog.table_settings(name))}
