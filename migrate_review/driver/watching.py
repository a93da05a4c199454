"""Measures each statement of a revision on the connection that runs it.

Statements that PostgreSQL refuses in a transaction lose their locks when they end. While they wait, `ask_outside` has
their locks read from another connection. Like the whole driver, this module imports only SQLAlchemy.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from migrate_review.lock_modes import strength

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import sqlalchemy

# Locks held, rows read by sequential scans so far, and the file of each table, for tables given by oid. The functions
# below the statistics views, because a view has to be planned anew before and after each statement.
_MEASURE = """
SELECT json_build_array(
    (SELECT coalesce(json_agg(json_build_array(relation::bigint, mode)), '[]') FROM pg_locks
     WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation = ANY (tables)
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())),
    (SELECT coalesce(json_object_agg(oid, {reads}(oid)), '{{}}') FROM unnest(tables) AS oid),
    (SELECT coalesce(json_object_agg(oid, pg_relation_filenode(oid)), '{{}}') FROM unnest(tables) AS oid)
)::text FROM (SELECT '{{{tables}}}'::oid[] AS tables) AS given
"""
# In this transaction; and what sessions have reported of all.
_READS_HERE = "pg_stat_get_xact_tuples_returned"
_READS_REPORTED = "pg_stat_get_tuples_returned"

# SET TRANSACTION has to come before any query, ours included; and none of these touches a table.
_NOT_MEASURED = re.compile(r"\s*(SET|SHOW|RESET|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE)

_LEADING_COMMENTS = re.compile(r"(\s+|--[^\n]*(\n|$)|/\*.*?\*/)*", re.DOTALL)

# What PostgreSQL refuses in a transaction, and what may end one itself.
_ALONE = re.compile(
    r"(\w+\s.*\bCONCURRENTLY\b|VACUUM|CLUSTER\s*;?\s*$|REINDEX\s+(\(.*\)\s*)?(DATABASE|SYSTEM|SCHEMA)"
    r"|CALL\b|DO\b.*\b(COMMIT|ROLLBACK)\b"
    r"|(CREATE|DROP|ALTER)\s+(DATABASE|TABLESPACE|SUBSCRIPTION|SYSTEM))",
    re.IGNORECASE | re.DOTALL,
)


@dataclass
class Watch:
    """Measures the statements of one pass.

    ``tables`` are those that were there before, by oid; ``rows`` is how many rows each had. ``ask_outside`` is called
    with a backend's process id before a statement that must run alone, and again, with None, after it: then it gives
    the locks that were seen.
    """

    tables: Mapping[int, str]
    rows: Mapping[int, int]
    ask_outside: Callable[[int | None], list[tuple[int, str]]]
    statements: list[dict[str, Any]] = field(default_factory=list)
    failed_sql: str | None = None
    _on: bool = False
    _measuring: bool = False
    _began: float = 0.0
    _before: _Measured | None = None
    _last: _Measured | None = None
    _wrapped: bool = False
    _alone: bool = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measure the statements that run in this context, and no others."""
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def attach(self, connection: sqlalchemy.Connection) -> None:
        """Listen to the statements of a connection."""
        event.listen(connection, "before_cursor_execute", self._before_execute)
        event.listen(connection, "after_cursor_execute", self._after_execute)
        event.listen(connection.engine, "handle_error", self._failed)
        for name in ("commit", "rollback", "rollback_savepoint"):
            event.listen(connection, name, self._forget_locks)

    def _forget_locks(self, *_: Any) -> None:  # noqa: ANN401
        self._last = None

    def _before_execute(self, conn: Any, _: Any, statement: str, *__: Any) -> None:  # noqa: ANN401
        if not self._on or self._measuring:
            return
        self._before = None
        self._wrapped = self._alone = False
        bare = _LEADING_COMMENTS.sub("", statement, count=1)
        if not _NOT_MEASURED.match(bare):
            if _is_autocommit(conn):
                self._alone = bool(_ALONE.match(bare))
                if self._alone:
                    self.ask_outside(int(self._ask(conn, "SELECT pg_backend_pid()")))
                    self._report(conn)
                else:
                    # Its locks can be seen if they are kept a moment longer, until after it is measured.
                    self._run(conn, "BEGIN")
                    self._wrapped = True
            # What was measured after the last statement holds as long as the transaction does.
            self._before = self._last or self._measure(conn)
        self._began = time.perf_counter()

    def _after_execute(self, conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:  # noqa: ANN401
        if not self._on or self._measuring:
            return
        duration_ms = (time.perf_counter() - self._began) * 1000
        before = self._before
        taken: dict[str, Any] = {"locks": [], "scanned": [], "rewritten": []}
        if before is not None:
            if self._alone:
                self._report(conn)
            after = self._measure(conn)
            self._last = None if _is_autocommit(conn) else after
            if self._alone:
                after = _Measured(self.ask_outside(None), after.reads, after.files)
            taken = self._difference(before, after)
            if self._wrapped:
                self._wrapped = False
                self._run(conn, "COMMIT")
        self.statements.append(
            {
                "sql": bound(cursor, statement, parameters),
                "duration_ms": round(duration_ms, 3),
                "in_transaction": not _is_autocommit(conn),
                **taken,
            }
        )

    def _failed(self, context: Any) -> None:  # noqa: ANN401 - SQLAlchemy's ExceptionContext
        if not self._on or self._measuring or context.statement is None:
            return
        self.failed_sql = bound(None, context.statement, context.parameters)
        if self._alone:
            self.ask_outside(None)
            self._alone = False
        if self._wrapped and context.connection is not None and not context.is_disconnect:
            self._wrapped = False
            self._run(context.connection, "ROLLBACK")

    def _difference(self, before: _Measured, after: _Measured) -> dict[str, Any]:
        held = _strongest(before.locks)
        locks = [
            [self.tables[oid], mode]
            for oid, mode in sorted(_strongest(after.locks).items())
            if oid in self.tables and strength(mode) > strength(held.get(oid))
        ]
        scanned = [
            name
            for oid, name in sorted(self.tables.items())
            if self.rows.get(oid) and after.reads.get(oid, 0) - before.reads.get(oid, 0) >= self.rows[oid] / 2
        ]
        rewritten = [
            name
            for oid, name in sorted(self.tables.items())
            if oid in before.files and oid in after.files and before.files[oid] != after.files[oid]
        ]
        return {"locks": locks, "scanned": scanned, "rewritten": rewritten}

    def _measure(self, conn: Any) -> _Measured:  # noqa: ANN401
        if not self.tables:
            return _Measured([], {}, {})
        function = _READS_REPORTED if self._alone else _READS_HERE
        tables = ",".join(str(oid) for oid in self.tables)
        locks, reads, files = json.loads(self._ask(conn, _MEASURE.format(reads=function, tables=tables)))
        return _Measured(
            [(oid, mode) for oid, mode in locks],
            {int(oid): count for oid, count in reads.items() if count is not None},
            {int(oid): file for oid, file in files.items() if file is not None},
        )

    def _report(self, conn: Any) -> None:  # noqa: ANN401
        """Make the server publish this session's statistics now. By itself it does so about once a second."""
        self._ask(conn, "SELECT pg_stat_force_next_flush()::text")

    def _ask(self, conn: Any, query: str) -> Any:  # noqa: ANN401
        """Return the one value of a query, which runs on the same connection without SQLAlchemy's events."""
        self._measuring = True
        cursor = conn.connection.cursor()
        try:
            cursor.execute(query)
            return cursor.fetchone()[0]
        finally:
            cursor.close()
            self._measuring = False

    def _run(self, conn: Any, command: str) -> None:  # noqa: ANN401
        self._measuring = True
        cursor = conn.connection.cursor()
        try:
            cursor.execute(command)
        finally:
            cursor.close()
            self._measuring = False


@dataclass(frozen=True)
class _Measured:
    """Locks held, rows read by sequential scans so far, and the file of each table, all by oid."""

    locks: list[tuple[int, str]]
    reads: dict[int, int]
    files: dict[int, int]


def _strongest(locks: list[tuple[int, str]]) -> dict[int, str]:
    strongest: dict[int, str] = {}
    for oid, mode in locks:
        if strength(mode) > strength(strongest.get(oid)):
            strongest[oid] = mode
    return strongest


def _is_autocommit(conn: Any) -> bool:  # noqa: ANN401 - a driver's connection, of any driver
    return bool(getattr(conn.connection.dbapi_connection, "autocommit", False))


def bound(cursor: Any, statement: str, parameters: Any) -> str:  # noqa: ANN401 - any driver's
    """Return the statement as the driver sent it or, if unknown, with the parameters in a comment."""
    sent = getattr(cursor, "query", None)  # psycopg2
    if isinstance(sent, bytes):
        return sent.decode(errors="replace").strip()
    if not parameters:
        return statement.strip()
    return f"{statement.strip()} /* {parameters!r} */"
