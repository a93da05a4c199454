"""Reads schema, rows and sequences of a database, to compare a replayed one with a restored one."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from lambda_migrate.database.schema import fingerprint, read_schema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 has a class of this name

    from localcloud.postgres import Database

_SHOWN = 5

# Rows are compared as text, which depends on these.
_SETTINGS = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3"

# Tables and filled materialized views of the user's own, by their names from the home schema.
_TABLES = """
SELECT c.oid::regclass::text, array(
    SELECT quote_ident(attname)::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND c.oid >= 16384
AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
ORDER BY 1
"""
_SEQUENCES = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_sequence s ON s.seqrelid = c.oid
WHERE NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
"""
# Unfilled materialized views are a difference, too.
_UNFILLED = "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind = 'm' AND NOT c.relispopulated"


@dataclass(frozen=True)
class State:
    """The content of a database.

    ``objects`` are those of `read_schema`. ``rows`` has the number of rows of each table and a digest of each column,
    with one of whole rows under the name ``""``. ``others`` are the values of sequences, and unfilled views.
    """

    objects: Mapping[str, str]
    rows: Mapping[str, tuple[int, Mapping[str, str]]]
    others: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the schema."""
        return fingerprint(self.objects)

    def differing_rows(self, other: State) -> dict[str, tuple[str, ...]]:
        """Return the columns that differ, by table. If the number of rows differs, the table has no columns here."""
        found: dict[str, tuple[str, ...]] = {}
        for table in sorted(self.rows.keys() & other.rows.keys()):
            (count, digests), (other_count, other_digests) = self.rows[table], other.rows[table]
            if count != other_count:
                found[table] = ()
            elif digests != other_digests:
                found[table] = tuple(name for name in digests if name and digests[name] != other_digests.get(name))
        return found

    def differences(self, other: State, allowed: Collection[str] = ()) -> list[str]:
        """Return a few words for each difference. Rows of the ``allowed`` tables may differ."""
        found = [
            name
            for name in sorted({*self.objects, *other.objects})
            if self.objects.get(name) != other.objects.get(name)
        ]
        found += [f"rows of {table}" for table in self.differing_rows(other) if table not in allowed]
        found += [
            name for name in sorted({*self.others, *other.others}) if self.others.get(name) != other.others.get(name)
        ]
        return found


def read(database: Database, home: str, version_table: str) -> State:
    """Return the content of a database, with names relative to the home schema."""
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(_SETTINGS)
        objects = read_schema(opened, home, version_table=version_table).objects
        cursor.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(home)))
        return State(objects, dict(_rows(cursor)), dict(_others(cursor)))


def shown(differences: list[str]) -> str:
    """Return the first differences for a message."""
    more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    return ", ".join(differences[:_SHOWN]) + more


def tables_with(database: Database, home: str, texts: Iterable[str]) -> Iterator[str]:
    """Yield the tables that have one of these texts in a row."""
    patterns = [f"%{text}%" for text in texts]
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(_SETTINGS)
        cursor.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(home)))
        for table, _ in _tables(cursor):
            # The names come from regclass, which quotes them.
            cursor.execute(f"SELECT EXISTS (SELECT FROM {table} AS t WHERE t::text LIKE ANY (%s))", (patterns,))  # noqa: S608
            if cursor.fetchone() == (True,):
                yield table


def _tables(cursor: Cursor) -> list[tuple[str, list[str]]]:
    cursor.execute(_TABLES)
    return cursor.fetchall()


def _rows(cursor: Cursor) -> Iterator[tuple[str, tuple[int, Mapping[str, str]]]]:
    for table, columns in _tables(cursor):
        each = {"": "t", **{column: f"t.{column}" for column in columns}}
        digests = ", ".join(
            f"md5(string_agg(md5(coalesce({value}::text, '\\N')), '' ORDER BY md5(coalesce({value}::text, '\\N'))))"
            for value in each.values()
        )
        cursor.execute(f"SELECT count(*), {digests} FROM ONLY {table} AS t")  # noqa: S608 - as above
        [(count, *found)] = cursor.fetchall()
        yield table, (count, dict(zip(each, found, strict=True)))


def _others(cursor: Cursor) -> Iterator[tuple[str, Any]]:
    cursor.execute(_SEQUENCES)
    for (sequence,) in cursor.fetchall():
        cursor.execute(f"SELECT last_value, is_called FROM {sequence}")  # noqa: S608 - as above
        yield f"the value of sequence {sequence}", cursor.fetchone()
    cursor.execute(_UNFILLED)
    for (view,) in cursor.fetchall():
        yield f"the missing rows of materialized view {view}", True
