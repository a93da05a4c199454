"""Recognizes the effects of an interrupted run's statements that ran outside a transaction.

A revision with an autocommit block commits each of its statements, and its version after them. If the function is
killed in between, the next run begins the revision again. It then meets a statement whose work is done, or half done.

- Done: an index that exists with the same definition, an enum value that is there, an index that is gone. The statement
  is skipped.
- Half done: an invalid index, a partition that is being detached. It is dropped or finished first.
- Another thing of the same name: PostgreSQL raises its error, and a note shows both definitions.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy.exc import DBAPIError

from lambda_migrate.database.qualified import qualified

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SKIPPED = "SELECT 1"

_NAME = r'(?:"(?:[^"]|"")+"|\w+)'
_QUALIFIED = rf"{_NAME}(?:\s*\.\s*{_NAME})?"
_TEXT = r"'(?:[^']|'')*'"
_BLANK = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*"


def _statement(words: str) -> re.Pattern[str]:
    """Return a pattern for a whole statement. In ``words``, a space matches any white space."""
    spaced = words.replace(" ", r"\s+")
    return re.compile(rf"{_BLANK}{spaced}\s*;?{_BLANK}\Z", re.IGNORECASE | re.DOTALL)


_CREATE_INDEX = _statement(
    r"CREATE (?P<unique>UNIQUE )?INDEX CONCURRENTLY (?:(?P<lenient>IF NOT EXISTS )?"
    rf"(?!ON\b)(?P<index>{_NAME}) )?ON (?:ONLY )?(?P<table>{_QUALIFIED})(?P<rest>.*?)"
)
_DROP_INDEX = _statement(rf"DROP INDEX CONCURRENTLY (?P<index>(?!IF\b){_QUALIFIED})(?: (?:CASCADE|RESTRICT))?")
_ADD_VALUE = _statement(
    rf"ALTER TYPE (?P<type>{_QUALIFIED}) ADD VALUE (?P<value>{_TEXT})"
    rf"(?: (?P<where>BEFORE|AFTER) (?P<neighbor>{_TEXT}))?"
)
_RENAME_VALUE = _statement(rf"ALTER TYPE (?P<type>{_QUALIFIED}) RENAME VALUE (?P<value>{_TEXT}) TO (?P<new>{_TEXT})")
_REINDEX = _statement(
    r"REINDEX(?:\s*\((?P<options>[^)]*)\))? (?P<kind>INDEX|TABLE|SCHEMA|DATABASE)(?P<concurrently> CONCURRENTLY)?"
    rf"(?: (?P<name>{_QUALIFIED}))?"
)
_CONCURRENTLY = re.compile(r"\bCONCURRENTLY\b(?!\s*=?\s*(?:off|false|0))", re.IGNORECASE)
_DETACH = _statement(
    rf"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?(?P<table>{_QUALIFIED}) DETACH PARTITION (?P<partition>{_QUALIFIED})"
    r" CONCURRENTLY"
)
_CREATE_DATABASE = _statement(rf"CREATE DATABASE (?P<name>{_NAME})(?:(?: WITH)? OWNER\s*=?\s*(?P<owner>{_NAME}))?")
_DROP_DATABASE = _statement(rf"DROP DATABASE (?P<name>(?!IF\b){_NAME})(?:\s*(?:WITH\s*)?\(\s*FORCE\s*\))?")

# An index that another session is building now is invalid too, and must stay. An index is created in its table's
# schema, so its name needs none. A lookup in all schemas would need rights in them.
_IDLE = "NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)"
_INDEXES = (
    "SELECT i.indexrelid::regclass::text, i.indisvalid, pg_get_indexdef(i.indexrelid)"  # noqa: S608 - ours
    " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid"
    f" WHERE i.indrelid = to_regclass(:table) AND {_IDLE} AND CASE WHEN (:index)::text IS NULL"
    " THEN c.relname ~ '_idx[0-9]*$' AND starts_with(c.relname, left(t.relname, 20))"
    " ELSE c.relname = (parse_ident(:index))[1] END"
)
_LEFT_BY_REINDEX = (
    "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"  # noqa: S608 - ours
    f" WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$' AND {_IDLE} AND "
)
_PARTITIONS = "SELECT FROM pg_partition_tree(to_regclass(:name)) p WHERE p.relid ="
_REINDEXED = {
    "INDEX": "EXISTS (SELECT FROM pg_index o WHERE o.indrelid = i.indrelid"
    f" AND (o.indexrelid = to_regclass(:name) OR EXISTS ({_PARTITIONS} o.indexrelid)))",
    "TABLE": f"(i.indrelid = to_regclass(:name) OR EXISTS ({_PARTITIONS} i.indrelid))",
    "SCHEMA": "c.relnamespace = to_regnamespace(:name)",
    # Without a name, it is the database that the session is in.
    "DATABASE": "NOT c.relnamespace::regnamespace::text ~ '^pg_'",
}


@dataclass
class Resuming:
    """Inspects the statements of a revision before they run.

    ``dropped`` gets the name of each dropped invalid index, ``skipped`` the evidence for each skipped statement.
    ``note`` is the object that blocks the last statement.
    """

    dropped: Callable[[str], None]
    skipped: Callable[[str], None]
    note: str = ""
    _busy: bool = field(default=False, repr=False)

    def before(self, connection: sqlalchemy.Connection, statement: str) -> str:
        """Return the statement to run in place of one that runs outside a transaction."""
        if self._busy:
            return statement
        self.note = ""
        if not getattr(connection.connection.dbapi_connection, "autocommit", False):
            return statement
        for pattern, resume in _RESUMED:
            found = pattern.match(statement)
            if found is not None:
                self._busy = True
                try:
                    return resume(self, connection, found)
                finally:
                    self._busy = False
        return statement

    @property
    def is_busy(self) -> bool:
        """Return whether a statement of its own is running."""
        return self._busy

    def create_index(self, connection: sqlalchemy.Connection, wanted: re.Match[str]) -> str:
        """Drop an invalid index of this name or definition, or skip the statement if a valid one is the same."""
        indexes = _rows(connection, _INDEXES, table=wanted["table"], index=wanted["index"])
        definition = _definition(connection, wanted) if indexes and not wanted["lenient"] else None
        for name, valid, existing in indexes:
            same = definition is not None and _without_names(existing) == _without_names(definition)
            if not valid and (wanted["index"] or same):
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {_doubled(connection, name)}")
                self.dropped(name)
            elif valid and same:
                return self._skip(f"the index {name} exists with the same definition")
            elif wanted["index"] and not wanted["lenient"]:
                self.note = f"the database has: {existing}; the revision wants: {definition or wanted[0].strip()}"
        return wanted[0]

    def drop_index(self, connection: sqlalchemy.Connection, wanted: re.Match[str]) -> str:
        """Skip the statement if the index is gone."""
        if _scalar(connection, "SELECT to_regclass(:name) IS NULL", name=wanted["index"]):
            return self._skip(f"the index {wanted['index']} is gone")
        return wanted[0]

    def add_value(self, connection: sqlalchemy.Connection, wanted: re.Match[str]) -> str:
        """Skip the statement if the enum has the value, on the wanted side of its neighbor."""
        labels = _labels(connection, wanted["type"])
        value = _unquoted(wanted["value"])
        if value not in labels:
            return wanted[0]
        neighbor = _unquoted(wanted["neighbor"]) if wanted["neighbor"] else None
        if neighbor in labels and (labels.index(value) < labels.index(neighbor)) != (
            wanted["where"].upper() == "BEFORE"
        ):
            self.note = f"the database has the values: {', '.join(labels)}; the revision wants: {wanted[0].strip()}"
            return wanted[0]
        return self._skip(f"{wanted['type']} has the value {wanted['value']}")

    def rename_value(self, connection: sqlalchemy.Connection, wanted: re.Match[str]) -> str:
        """Skip the statement if the enum has the new value only."""
        labels = _labels(connection, wanted["type"])
        if _unquoted(wanted["new"]) in labels and _unquoted(wanted["value"]) not in labels:
            return self._skip(f"{wanted['type']} has the value {wanted['new']} and not {wanted['value']}")
        return wanted[0]

    def reindex(self, connection: sqlalchemy.Connection, wanted: re.Match[str]) -> str:
        """Drop the invalid indexes that an interrupted REINDEX CONCURRENTLY left."""
        if wanted["concurrently"] or _CONCURRENTLY.search(wanted["options"] or ""):
            left = _LEFT_BY_REINDEX + _REINDEXED[wanted["kind"].upper()]
            for (name,) in _rows(connection, left, name=wanted["name"]):
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {_doubled(connection, name)}")
                self.dropped(name)
        return wanted[0]

    def detach(self, connection: sqlalchemy.Connection, wanted: re.Match[str]) -> str:
        """Finish an interrupted detachment, or skip the statement if it was finished."""
        state = _scalar(
            connection,
            "SELECT CASE WHEN to_regclass(:partition) IS NULL OR to_regclass(:table) IS NULL THEN 'missing' ELSE"
            " coalesce((SELECT CASE WHEN (to_jsonb(i) ->> 'inhdetachpending') = 'true' THEN 'pending'"
            " ELSE 'attached' END"
            " FROM pg_inherits i WHERE inhrelid = to_regclass(:partition) AND inhparent = to_regclass(:table)),"
            " 'detached') END",
            table=wanted["table"],
            partition=wanted["partition"],
        )
        if state == "detached":
            return self._skip(f"{wanted['partition']} is no partition of {wanted['table']}")
        if state == "pending":
            return f"ALTER TABLE {wanted['table']} DETACH PARTITION {wanted['partition']} FINALIZE"
        return wanted[0]

    def create_database(self, connection: sqlalchemy.Connection, wanted: re.Match[str]) -> str:
        """Skip the statement if the database exists with the same owner."""
        owner = _scalar(
            connection,
            "SELECT datdba::regrole = coalesce(to_regrole((:owner)::text), current_user::regrole)"
            " FROM pg_database WHERE datname = (parse_ident(:name))[1]",
            name=wanted["name"],
            owner=wanted["owner"],
        )
        return self._skip(f"the database {wanted['name']} exists with the same owner") if owner else wanted[0]

    def drop_database(self, connection: sqlalchemy.Connection, wanted: re.Match[str]) -> str:
        """Skip the statement if the database is gone."""
        there = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = (parse_ident(:name))[1])"
        if _scalar(connection, there, name=wanted["name"]):
            return wanted[0]
        return self._skip(f"the database {wanted['name']} is gone")

    def _skip(self, why: str) -> str:
        self.skipped(why)
        return SKIPPED


_RESUMED = (
    (_CREATE_INDEX, Resuming.create_index),
    (_DROP_INDEX, Resuming.drop_index),
    (_ADD_VALUE, Resuming.add_value),
    (_RENAME_VALUE, Resuming.rename_value),
    (_REINDEX, Resuming.reindex),
    (_DETACH, Resuming.detach),
    (_CREATE_DATABASE, Resuming.create_database),
    (_DROP_DATABASE, Resuming.drop_database),
)


def _definition(connection: sqlalchemy.Connection, wanted: re.Match[str]) -> str | None:
    """Return the definition of the wanted index in PostgreSQL's words, from an empty copy of its table, or None.

    The copy has the table's name, because an expression may name the table. The transaction is rolled back.
    """
    table = re.sub(rf"^{_NAME}\s*\.\s*", "", wanted["table"])
    unique = wanted["unique"] or ""
    connection.exec_driver_sql("BEGIN")
    try:
        connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {table} (LIKE {wanted['table']})")
        connection.exec_driver_sql(f"CREATE {unique}INDEX wanted ON pg_temp.{table}{wanted['rest']}")
        copied = _scalar(connection, "SELECT pg_get_indexdef(to_regclass('pg_temp.wanted'))")
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return None
    finally:
        with suppress(DBAPIError):
            connection.exec_driver_sql("ROLLBACK")
    name = f" {wanted['index']}" if wanted["index"] else ""
    return f"CREATE {unique.upper()}INDEX{name} ON {wanted['table']} USING {copied.split(' USING ', 1)[1]}"


def _without_names(definition: str) -> tuple[bool, str]:
    head, tail = definition.split(" USING ", 1)
    return head.upper().startswith("CREATE UNIQUE "), tail


def _labels(connection: sqlalchemy.Connection, name: str) -> list[str]:
    """Return the values of an enum, in their order."""
    sql = "SELECT enumlabel FROM pg_enum WHERE enumtypid = to_regtype(:name) ORDER BY enumsortorder"
    return [label for (label,) in _rows(connection, sql, name=name)]


def _scalar(connection: sqlalchemy.Connection, sql: str, **parameters: str | None) -> Any:  # noqa: ANN401
    rows = _rows(connection, sql, **parameters)
    return rows[0][0] if rows else None


def _rows(connection: sqlalchemy.Connection, sql: str, **parameters: str | None) -> Sequence[Any]:
    return connection.execute(sqlalchemy.text(qualified(sql)), parameters).all()


def _unquoted(literal: str) -> str:
    return literal[1:-1].replace("''", "'")


def _doubled(connection: sqlalchemy.Connection, name: str) -> str:
    """Return a name with doubled percent signs, which the driver would otherwise take for placeholders."""
    return name.replace("%", "%%") if connection.dialect.paramstyle in {"format", "pyformat"} else name
