"""Measures each statement of a revision on the connection that runs it.

Statements that PostgreSQL refuses in a transaction release their locks when they end. While such a statement runs, the
other end of the driver's pipes reads its locks on another connection. Like the whole driver, this module imports only
Alembic, SQLAlchemy, the standard library and modules of ours that do the same.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from lambda_migrate.database.lock_modes import ROW_SHARE, strength
from lambda_migrate.env_py.transactions import is_idle
from migrate_review.driver import plpgsql
from migrate_review.observation import is_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import sqlalchemy

# For tables given by oid: locks held; rows read by sequential scans and rows changed so far; scans and rows read of
# each index so far; files; numbers of columns; foreign keys that are valid; the time zone. Counters that are 0 are left
# out. It calls the functions of the statistics views, because PostgreSQL plans a view again for each statement.
_MEASURE = """
SELECT json_build_array(
    (SELECT coalesce(json_agg(json_build_array(relation::bigint, mode)), '[]') FROM pg_locks
     WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation = ANY (tables)
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())),
    (SELECT coalesce(json_object_agg(oid, json_build_array(returned, changed)) FILTER (WHERE returned + changed > 0),
                     '{{}}')
     FROM unnest(tables) AS oid, LATERAL (SELECT pg_stat_get{here}_tuples_returned(oid) AS returned,
         pg_stat_get{here}_tuples_updated(oid) + pg_stat_get{here}_tuples_deleted(oid) AS changed) AS counted),
    (SELECT coalesce(json_object_agg(i.indexrelid, json_build_array(i.indrelid::bigint, scans, returned))
                     FILTER (WHERE scans > 0), '{{}}')
     FROM pg_index i, LATERAL (SELECT pg_stat_get{here}_numscans(i.indexrelid) AS scans,
         pg_stat_get{here}_tuples_returned(i.indexrelid) AS returned) AS counted
     WHERE i.indrelid = ANY (tables)),
    (SELECT coalesce(json_object_agg(oid, json_build_array(pg_relation_filenode(oid), relnatts)), '{{}}')
     FROM pg_class WHERE oid = ANY (tables)),
    (SELECT coalesce(json_object_agg(k.oid, json_build_array(
         k.conrelid::bigint, (SELECT min(n) FROM unnest(k.conkey) n))), '{{}}')
     FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
     WHERE k.conrelid = ANY (tables) AND k.contype = 'f' AND k.convalidated AND c.relkind = 'r'),
    current_setting('TimeZone')
)::text FROM (SELECT '{{{tables}}}'::oid[] AS tables) AS given
"""
# In the functions' names: this transaction's counters, or the counters that all sessions have reported.
_HERE = "_xact"
_REPORTED = ""

# A table whose file is new and empty was truncated.
_EMPTIED = """
SELECT coalesce(json_agg(oid::bigint), '[]')::text FROM pg_class
WHERE oid = ANY ('{{{tables}}}') AND pg_relation_size(oid) = 0
"""

# FOR KEY SHARE is missing, because it blocks only a DELETE and a change of the key.
_LOCKS_ROWS = re.compile(r"\bFOR\s+(UPDATE|NO\s+KEY\s+UPDATE|SHARE)\b", re.IGNORECASE)
# Rows that this transaction has locked, or a savepoint of it.
_LOCKED = """
SELECT count(*) FROM ONLY {table} WHERE xmax IN (
    SELECT transactionid FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'transactionid')
"""

# An index scan with fewer rows than this looks up keys. The number of such scans depends on other rows.
_LOOKED_UP = 5

# A statement for a part of the rows: it has a limit, or a column has an upper bound.
_BOUNDED = re.compile(r"\b(limit|between|fetch\s+first)\b|<=?\s*(\(|row\b|cast\b|'|\d)", re.IGNORECASE)

# A block of statements, which is one transaction unless it commits.
_BLOCK = re.compile(r"\s*(DO\b|CALL\s+(?P<procedure>[^(]+))", re.IGNORECASE)
_COMMITS = re.compile(r"\bCOMMIT\b", re.IGNORECASE)
_SOURCE = "SELECT coalesce(string_agg(prosrc, ' '), '') FROM pg_proc WHERE prokind = 'p' AND proname = '{name}'"

# The text for statements on the driver's own cursor, as in `op.get_bind().connection.cursor()`. SQLAlchemy does not
# report them.
_UNSEEN = "-- on the driver's own cursor, whose statements the review does not see"

_LITERAL = re.compile(r"'(?:[^']|'')*'|(?<![\w.])-?\d+(?:\.\d+)?")

# SET TRANSACTION must come before any query, also before ours. None of these statements touches a table.
_NOT_MEASURED = re.compile(r"\s*(SET|SHOW|RESET|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b", re.IGNORECASE)

_LEADING_COMMENTS = re.compile(r"(\s+|--[^\n]*(\n|$)|/\*.*?\*/)*", re.DOTALL)

# Statements that PostgreSQL refuses in a transaction, and statements that may end one.
_ALONE = re.compile(
    r"(\w+\s.*\bCONCURRENTLY\b|VACUUM|CLUSTER\s*;?\s*$|REINDEX\s+(\(.*\)\s*)?(DATABASE|SYSTEM|SCHEMA)"
    r"|CALL\b|DO\b.*\b(COMMIT|ROLLBACK)\b"
    r"|(CREATE|DROP|ALTER)\s+(DATABASE|TABLESPACE|SUBSCRIPTION|SYSTEM))",
    re.IGNORECASE | re.DOTALL,
)


@dataclass
class Watch:
    """Measures the statements of one pass.

    ``tables`` are those that existed before, by oid; ``rows`` is the number of their rows. ``outside_locks`` is called
    with a backend's process id before a statement that must run alone. After the statement it is called with None, and
    returns the locks.
    """

    tables: Mapping[int, str]
    rows: Mapping[int, int]
    outside_locks: Callable[[int | None], list[tuple[int, str]]]
    statements: list[dict[str, Any]] = field(default_factory=list)
    failed_sql: str | None = None
    # Reasons why something is not measured: parts that did not run, and statements that the review did not see.
    left_out: list[str] = field(default_factory=list)
    # The source text of the revision's upgrade().
    source: str = ""
    _marked: plpgsql.Marked | None = None
    # Texts that create functions with marks. Later statements call these functions.
    _functions: list[plpgsql.Marked] = field(default_factory=list)
    # The last statement that failed. If the revision itself does not fail, it caught the error.
    _caught: str | None = None
    _on: bool = False
    _measuring: bool = False
    _began: float = 0.0
    _before: _Measured | None = None
    _last: _Measured | None = None
    _wrapped: bool = False
    _alone: bool = False
    _committed: bool = False
    _connection: sqlalchemy.Connection | None = None
    # No statement has run in this pass.
    _is_first: bool = True
    # When the last statement of the transaction ended; None if nothing has run in it.
    _ended: float | None = None
    _idle_ms: float = 0.0
    # Time in an open transaction after its last statement.
    idle_ms: float = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measure the statements that run in this context, and no others."""
        self._on = True
        try:
            yield
        finally:
            self.idle_ms = self._idle()
            self._on = False
        if self._caught is not None:
            self.left_out.append(f"it caught the error of a statement: {' '.join(self._caught.split())}")
        if self._connection is not None and not (self._connection.closed or self._connection.invalidated):
            self._note_unseen(self._connection)
            for each in self._functions:
                self._note_left_out(self._connection, each)

    def _idle(self) -> float:
        """Return the milliseconds since the last statement of the open transaction, 0 if there is none."""
        return 0.0 if self._ended is None else round(max(0.0, _clock() - self._ended) * 1000, 3)

    def _note_unseen(self, conn: sqlalchemy.Connection, now: _Measured | None = None) -> None:
        """Add a statement for work on the driver's own cursor, before the first statement or since the last one."""
        if is_idle(conn) or not (self._last or self._is_first):
            return
        now = now or self._measure(conn)
        before = self._last or _Measured([], files=now.files, foreign_keys=now.foreign_keys)
        done = self._difference(before, now, []) | self._reading(before, now, _UNSEEN, bounded=False)
        if done["locks"] or done["changed"] or done["scanned"] or done["rewritten"]:
            self.statements.append(
                {"sql": _UNSEEN, "duration_ms": 0.0, "in_transaction": True, "idle_ms": self._idle_ms, **done}
            )

    def attach(self, connection: sqlalchemy.Connection) -> None:
        """Listen to the statements of a connection."""
        self._connection = connection
        event.listen(connection, "before_cursor_execute", self._before_execute, retval=True)
        event.listen(connection, "after_cursor_execute", self._after_execute)
        event.listen(connection.engine, "handle_error", self._failed)
        for name in ("commit", "rollback"):
            event.listen(connection, name, self._transaction_ends)
        event.listen(connection, "rollback_savepoint", self._forget_locks)

    def _transaction_ends(self, *_: Any) -> None:  # noqa: ANN401
        self._forget_locks()
        self._committed = self._on

    def _forget_locks(self, *_: Any) -> None:  # noqa: ANN401
        self._last = None
        self._ended = None

    def _before_execute(self, conn: Any, _: Any, statement: str, parameters: Any, *__: Any) -> tuple[str, Any]:  # noqa: ANN401
        """Measure before a statement. Return it, with marks if it is a DO block with branches."""
        self._marked = None
        if not self._on or self._measuring:
            return statement, parameters
        self._idle_ms = self._idle()
        self._before = None
        self._wrapped = self._alone = False
        bare = _LEADING_COMMENTS.sub("", statement, count=1)
        if not _NOT_MEASURED.match(bare):
            if _is_autocommit(conn):
                self._alone = bool(_ALONE.match(bare))
                if self._alone:
                    self.outside_locks(int(self._value(conn, "SELECT pg_backend_pid()")))
                    self._report(conn)
                else:
                    # A transaction keeps the statement's locks until they are measured.
                    self._run(conn, "BEGIN")
                    self._wrapped = True
            # The measurement after the last statement is valid until the transaction ends.
            self._before = self._last or self._measure(conn)
            if self._is_first and not _is_autocommit(conn):
                self._note_unseen(conn, self._before)
        self._is_first = False
        self._marked = plpgsql.marked(statement, self.source)
        if self._marked is not None and self._is_overloaded(conn, self._marked):
            self._marked = None
        self._began = time.perf_counter()
        return (statement if self._marked is None else self._marked.sql), parameters

    def _after_execute(self, conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:  # noqa: ANN401
        if not self._on or self._measuring:
            return
        duration_ms = (time.perf_counter() - self._began) * 1000
        before = self._before
        sql = bound(cursor, statement, parameters)
        if self._marked is not None:
            sql = self._marked.unmarked(sql)
            if self._marked.runs_later:
                self._functions.append(self._marked)
            else:
                self._note_left_out(conn, self._marked)
        taken: dict[str, Any] = {"locks": [], "scanned": [], "rewritten": [], "read": {}, "changed": {}, "locked": {}}
        if before is not None:
            if self._alone:
                self._report(conn)
            after = self._measure(conn)
            self._last = None if _is_autocommit(conn) else after
            if self._alone:
                after = replace(after, locks=self.outside_locks(None))
            bounded = _is_autocommit(conn) and self._is_batch(conn, sql)
            taken = self._difference(before, after, self._emptied(conn, before, after))
            taken |= self._reading(before, after, sql, bounded=bounded)
            if self._last is not None and _LOCKS_ROWS.search(sql):
                taken["locked"] = self._locked(conn, after)
            if self._wrapped:
                self._wrapped = False
                self._run(conn, "COMMIT")
        self.statements.append(
            {
                "sql": sql,
                "duration_ms": round(duration_ms, 3),
                "in_transaction": not _is_autocommit(conn),
                "idle_ms": self._idle_ms,
                "after_commit": self._committed,
                **taken,
            }
        )
        self._committed = False
        self._ended = None if _is_autocommit(conn) else _clock()

    def _is_batch(self, conn: Any, sql: str) -> bool:  # noqa: ANN401
        """Return whether a statement in its own transaction works on a part of the rows. A block must also commit."""
        block = _BLOCK.match(_LEADING_COMMENTS.sub("", sql, count=1))
        if block is None:
            return _BOUNDED.search(sql) is not None
        if block["procedure"]:
            name = block["procedure"].strip().rpartition(".")[2].strip('"').replace("'", "''")
            sql = self._value(conn, _SOURCE.format(name=name))
        return _BOUNDED.search(sql) is not None and _COMMITS.search(sql) is not None

    def _is_overloaded(self, conn: Any, marked: plpgsql.Marked) -> bool:  # noqa: ANN401
        """Return whether a function of this name already exists. The revision may drop that one and keep this one."""
        names = ", ".join(f"'{name.lower()}'" for name in marked.names.values())
        return bool(names) and self._value(conn, f"SELECT EXISTS (SELECT FROM pg_proc WHERE proname IN ({names}))")  # noqa: S608 - words

    def _note_left_out(self, conn: Any, marked: plpgsql.Marked) -> None:  # noqa: ANN401
        ran = self._value(conn, f"SELECT current_setting('{marked.setting}', true)")
        self.left_out += marked.left_out(ran or "")

    def _failed(self, context: Any) -> None:  # noqa: ANN401 - SQLAlchemy's ExceptionContext
        if not self._on or self._measuring or context.statement is None:
            return
        self.failed_sql = bound(None, context.statement, context.parameters)
        if self._marked is not None:
            self.failed_sql = self._marked.unmarked(self.failed_sql)
        if not plpgsql.already_exists(context.original_exception):
            self._caught = self.failed_sql
        if self._alone:
            self.outside_locks(None)
            self._alone = False
        if self._wrapped and context.connection is not None and not context.is_disconnect:
            self._wrapped = False
            self._run(context.connection, "ROLLBACK")

    def _difference(self, before: _Measured, after: _Measured, emptied: list[int]) -> dict[str, Any]:
        held = _strongest(before.locks)
        locks = [
            [self.tables[oid], mode]
            for oid, mode in sorted(_strongest(after.locks).items())
            if oid in self.tables and strength(mode) > strength(held.get(oid))
        ]
        changed = self._changed(before, after)
        rewritten = [
            name
            for oid, name in sorted(self.tables.items())
            if oid in before.files
            and oid in after.files
            and before.files[oid][0] != after.files[oid][0]
            and oid not in emptied
        ]
        return {
            "locks": locks,
            "changed": {self.tables[oid]: count for oid, count in changed.items()},
            "rewritten": rewritten,
            "time_zone": after.time_zone,
        }

    def _reading(self, before: _Measured, after: _Measured, sql: str, *, bounded: bool) -> dict[str, Any]:
        """Return the reads of a statement. A ``bounded`` one is one of several batches, each found by an index."""
        read = self._read(before, after, sql, bounded=bounded)
        return {
            "scanned": [self.tables[oid] for oid in sorted(read)],
            "read": {self.tables[oid]: count for oid, count in read.items()},
            "bounded": bounded,
        }

    def _read(self, before: _Measured, after: _Measured, sql: str, *, bounded: bool) -> dict[int, int]:
        """Return the rows read from each table for which this number grows with the table."""
        read = {}
        for oid in self.tables:
            rows = self.rows.get(oid)
            if not rows:
                continue
            count = after.counted(oid)[0] - before.counted(oid)[0]
            if count >= rows / 2:
                read[oid] = min(count, rows)
                continue
            scans, entries = after.used(oid, before)
            enough = is_share(entries, rows) and entries >= _LOOKED_UP * scans
            if enough and not bounded and len(_LITERAL.findall(sql)) < entries:
                read[oid] = min(entries, rows)
        for key, (oid, first_column) in after.foreign_keys.items():
            # PostgreSQL checks every row for a new foreign key, but its counters may not show all of them.
            if (
                key not in before.foreign_keys
                and self.rows.get(oid)
                and first_column <= before.files.get(oid, (0, 0))[1]
            ):
                read[oid] = self.rows[oid]
        return read

    def _changed(self, before: _Measured, after: _Measured) -> dict[int, int]:
        changed = {oid: after.counted(oid)[1] - before.counted(oid)[1] for oid in self.tables}
        return {oid: count for oid, count in changed.items() if count > 0 and self.rows.get(oid)}

    def _locked(self, conn: Any, after: _Measured) -> dict[str, int]:  # noqa: ANN401
        """Return the number of locked rows of each table. This reads the rows, so the last measurement is outdated."""
        found = {}
        for oid in sorted({oid for oid, mode in after.locks if mode == ROW_SHARE and self.rows.get(oid)}):
            table = self._value(conn, f"SELECT {oid}::regclass::text")
            found[self.tables[oid]] = self._value(conn, _LOCKED.format(table=table))
            self._last = None
        return {table: count for table, count in found.items() if count}

    def _emptied(self, conn: Any, before: _Measured, after: _Measured) -> list[int]:  # noqa: ANN401
        new = [oid for oid, (file, _) in after.files.items() if oid in before.files and before.files[oid][0] != file]
        found: list[int] = json.loads(self._value(conn, _EMPTIED.format(tables=",".join(map(str, new))))) if new else []
        return found

    def _measure(self, conn: Any) -> _Measured:  # noqa: ANN401
        if not self.tables:
            return _Measured([])
        tables = ",".join(str(oid) for oid in self.tables)
        here = _REPORTED if self._alone else _HERE
        locks, counters, indexes, files, keys, time_zone = json.loads(
            self._value(conn, _MEASURE.format(here=here, tables=tables))
        )
        counters, indexes, files, keys = (
            {int(oid): tuple(each) for oid, each in found.items()} for found in (counters, indexes, files, keys)
        )
        return _Measured([(oid, mode) for oid, mode in locks], counters, indexes, files, keys, time_zone)

    def _report(self, conn: Any) -> None:  # noqa: ANN401
        """Let the server publish this session's statistics now, instead of about once a second."""
        self._value(conn, "SELECT pg_stat_force_next_flush()::text")

    def _value(self, conn: Any, query: str) -> Any:  # noqa: ANN401
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
    """What `_MEASURE` returns, by oid.

    ``counters`` are rows read by sequential scans and rows changed, of a table; ``indexes`` hold the table, the scans
    and the rows read of an index; ``files`` the file and the number of columns of a table; ``foreign_keys`` the table
    and the first column of a valid one.
    """

    locks: list[tuple[int, str]]
    counters: dict[int, tuple[int, ...]] = field(default_factory=dict)
    indexes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    files: dict[int, tuple[int, ...]] = field(default_factory=dict)
    foreign_keys: dict[int, tuple[int, ...]] = field(default_factory=dict)
    time_zone: str | None = None

    def counted(self, table: int) -> tuple[int, ...]:
        """Return the table's counters."""
        return self.counters.get(table, (0, 0))

    def used(self, table: int, before: _Measured) -> tuple[int, int]:
        """Return the scans of the table's indexes since ``before``, and the rows that they read."""
        own = {index: counts for index, (of, *counts) in self.indexes.items() if of == table}
        was = {index: before.indexes.get(index, (table, 0, 0))[1:] for index in own}
        scans, entries = (sum(own[index][at] - was[index][at] for index in own) for at in (0, 1))
        return scans, entries


def _strongest(locks: list[tuple[int, str]]) -> dict[int, str]:
    strongest: dict[int, str] = {}
    for oid, mode in locks:
        if strength(mode) > strength(strongest.get(oid)):
            strongest[oid] = mode
    return strongest


def _clock() -> float:
    """Return the time in seconds, without the time in which this thread waited for a processor of a busy machine."""
    try:
        waited_ns = int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        waited_ns = 0  # not Linux
    return time.perf_counter() - waited_ns / 1e9


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
