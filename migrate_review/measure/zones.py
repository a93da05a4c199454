"""Finds new columns whose values depend on the session's time zone.

The review's session uses an unusual zone. If values equal another column's values in that zone, the session has
converted them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lambda_migrate.database.qualified import identifier
from migrate_review.observation import TIME_ZONE, Zoned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import connection

    from migrate_review.observation import Catalog

_WITH, _WITHOUT, _DATE = "timestamp with time zone", "timestamp without time zone", "date"

# SQL for the conversion in a time zone, by the types of the new column and of the other one.
_CONVERTED = {
    (_WITH, _WITHOUT): "{other} AT TIME ZONE {zone}",
    (_WITH, _DATE): "{other}::timestamp AT TIME ZONE {zone}",
    (_WITHOUT, _WITH): "{other} AT TIME ZONE {zone}",
    (_DATE, _WITH): "({other} AT TIME ZONE {zone})::date",
}


def by_the_session(opened: connection, before: Catalog, after: Catalog) -> tuple[Zoned, ...]:
    """Return the new columns that were filled from another column by the session's time zone."""
    found = []
    with opened.cursor() as cursor:
        for table, column, source, converted in _pairs(before, after):
            here, elsewhere = (
                converted.format(other=identifier(source), zone=f"'{zone}'") for zone in (TIME_ZONE, "UTC")
            )
            name = identifier(column)
            cursor.execute(
                f"SELECT bool_and({name} = {here}) AND bool_or({name} <> {elsewhere}) FROM {table}"  # noqa: S608 - quoted
                f" WHERE {name} IS NOT NULL AND isfinite({identifier(source)})"
            )
            if cursor.fetchone() == (True,):
                found.append(Zoned(table, column, source))
    return tuple(found)


def _pairs(before: Catalog, after: Catalog) -> Iterator[tuple[str, str, str, str]]:
    """Yield each new column, an older column of its table that may be the source, and the conversion."""
    for now in after.tables:
        was = before.table(now.oid)
        known = {column.number for column in was.columns} if was is not None else set()
        for column in now.columns:
            for other in now.columns:
                converted = _CONVERTED.get((_kind(column.type), _kind(other.type)))
                if converted and column.number not in known and other.number in known and not column.generated:
                    yield now.name, column.name, other.name, converted


def _kind(shown: str) -> str:
    return re.sub(r"\(\d\)", "", shown)
