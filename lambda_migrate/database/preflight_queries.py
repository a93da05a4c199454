"""Queries a database before a revision runs: its rows and sizes, its violations, and its blockers.

Nothing is changed, and no row leaves the server: a query's answer is a number. Each query has a transaction of its own
that cannot write, ends after PREFLIGHT_TIMEOUT_MS, and gives up at once where it would wait for a lock.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from lambda_migrate.database import blockers
from lambda_migrate.database.estimate import Size, Speed, milliseconds
from lambda_migrate.database.qualified import SEARCH_PATH
from lambda_migrate.database.session import read_only

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from lambda_migrate.database.session import Session
    from lambda_migrate.invocation.deadline import Deadline

# Violations are counted up to this number. Counting more takes longer and does not help.
MOST_VIOLATIONS = 1000

# Maximum number of pages in the sample that shows how fast this server reads: 16 MB.
_SAMPLE_PAGES = 2048
# A shorter sample measures only a round trip.
_LEAST_SAMPLE_MS = 5
# What is assumed without a sample, in bytes a second. No sample counts as more than ten times this.
_READS_PER_S = 100e6
# Approximate number of bytes that a check reads of a table that is too large for a full scan.
_CHECKED_BYTES = 64 << 20

# Objects that an earlier pending revision makes are not there yet.
_NOT_THERE = (
    psycopg2.errors.UndefinedTable,
    psycopg2.errors.UndefinedColumn,
    psycopg2.errors.UndefinedFunction,
    psycopg2.errors.UndefinedObject,
    psycopg2.errors.InvalidSchemaName,
    psycopg2.errors.DatatypeMismatch,
)
# Functions of PostgreSQL that the reviewer's queries use, and older servers do not have.
_NEWER = "pg_input_is_valid"
_SAYS_NOTHING = (psycopg2.errors.QueryCanceled, psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected)

# A table and its partitions.
_SIZES = """
    SELECT CASE WHEN c.reltuples > 0 AND c.relpages > 0
                -- As the planner does: the rows of a page when the table was last analyzed, on the pages of today.
                THEN (c.reltuples / c.relpages * (pg_relation_size(c.oid) / current_setting('block_size')::int))::bigint
            WHEN pg_relation_size(c.oid) = 0 THEN 0 END,
        pg_total_relation_size(c.oid), pg_table_size(c.oid),
        (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid), c.relkind = 'p', c.oid::regclass::text
    FROM (SELECT relid FROM pg_partition_tree(to_regclass(%s)) UNION SELECT to_regclass(%s)) AS t
    JOIN pg_class c ON c.oid = t.relid
"""
# Unqualified names of tables that are not in the home schema, but in a later one of the path.
_ELSEWHERE = """
    SELECT name FROM unnest(%(names)s::text[]) AS listed (name) JOIN pg_class c ON c.oid = to_regclass(name)
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE cardinality(parse_ident(name)) = 1 AND n.nspname <> %(home)s
"""
# Without the indexes, but it does not wait for sessions that have locked the table.
_SIZES_OF_LOCKED = """
    SELECT greatest(c.reltuples, 0)::bigint, c.relpages * current_setting('block_size')::bigint,
        c.relpages * current_setting('block_size')::bigint, 0, false, c.oid::regclass::text
    FROM pg_class c WHERE c.oid = to_regclass(%s)
"""


class PreflightQueries:
    """Queries for several revisions on one session. Each answer is kept, so no query runs twice.

    ``schema`` is where unqualified names are. A table that a pending revision makes there is missing, although another
    schema of the path may have one of its name: see `expect`.

    From ``max_scan_bytes`` on, the rows of a table are sampled. None means that all rows are always read.
    At ``deadline`` the queries stop.
    """

    def __init__(
        self, session: Session, schema: str, timeout_ms: int, max_scan_bytes: int | None, deadline: Deadline
    ) -> None:
        self._session = session
        self._schema = schema
        self._elsewhere: dict[str, bool] = {}
        path = dict.fromkeys(("pg_catalog", schema, *session.path, "pg_temp"))
        self._path = ", ".join(psycopg2.extensions.quote_ident(each, session.connection) for each in path)
        self._timeout_ms = timeout_ms
        self._max_scan_bytes = max_scan_bytes
        self._deadline = deadline
        self._sizes: dict[str, Size | None] = {}
        self._speed: Speed | None = None

    def expect(self, names: Collection[str]) -> None:
        """Record the tables that earlier pending revisions make or alter. The names are as in SQL.

        A tenant's schema may lack a table that `public` has. That table belongs to another tenant, or to none.
        """
        unknown = [name for name in names if name not in self._elsewhere]
        if unknown:
            found = {name for (name,) in self._ask(_ELSEWHERE, {"names": unknown, "home": self._schema})}
            self._elsewhere |= {name: name in found for name in unknown}

    def is_missing(self, name: str) -> bool:
        """Return whether a table is not there yet, and the path would find another schema's table instead."""
        return self._elsewhere.get(name, False)

    def size(self, name: str) -> Size | None:
        """Return the size of a table, or None if there is none of this name. The name is as in SQL."""
        if self.is_missing(name):
            return None
        if name not in self._sizes:
            try:
                rows = self._ask(_SIZES, (name, name))
            except _SAYS_NOTHING:
                rows = self._ask(_SIZES_OF_LOCKED, (name,))
            leaves = [row for row in rows if not row[4]]
            self._sizes[name] = (
                Size(
                    rows=sum(self._planned(row[5]) if row[0] is None else int(row[0]) for row in leaves),
                    bytes=sum(int(row[1]) for row in leaves),
                    heap_bytes=sum(int(row[2]) for row in leaves),
                    indexes=max((int(row[3]) for row in leaves), default=0),
                )
                if rows
                else None
            )
        return self._sizes[name]

    def _planned(self, table: str) -> int:
        """Return how many rows the planner expects of a table that was never analyzed."""
        try:
            [(plan,)] = self._query(f"EXPLAIN (FORMAT JSON) SELECT FROM ONLY {table}")
        except (*_SAYS_NOTHING, psycopg2.errors.InsufficientPrivilege):
            return 0
        return int(plan[0]["Plan"]["Plan Rows"])

    def check(self, check: Mapping[str, Any]) -> tuple[int | str, float | None]:
        """Return how many rows a check finds, or the result that it has instead, and the share of rows looked at.

        The share is None if all rows were.
        """
        try:
            share = self._share(check)
        except _SAYS_NOTHING:
            return "timed_out", None
        query = check["query"] if share is None else _sampled(check["query"], check["table"], share)
        if query is None:
            return "timed_out", None
        try:
            rows = self._query(
                f"SELECT count(*) FROM (SELECT 1 FROM ({query}) AS found LIMIT {MOST_VIOLATIONS}) AS counted"  # noqa: S608 - of the reviewer
            )
        except _NOT_THERE as error:
            return ("timed_out" if _NEWER in str(error) else "depends_on_pending"), share
        except (*_SAYS_NOTHING, psycopg2.Error):
            # Also a division by zero, or a cast that fails: then the query proves nothing about the rows.
            return "timed_out", share
        return int(rows[0][0]), share

    def _share(self, check: Mapping[str, Any]) -> float | None:
        size = self.size(check["table"]) if self._max_scan_bytes is not None else None
        if size is None or self._max_scan_bytes is None or size.heap_bytes <= self._max_scan_bytes:
            return None
        return min(1.0, _CHECKED_BYTES / size.heap_bytes)

    def milliseconds(self, work: Sequence[Mapping[str, Any]]) -> float | None:
        """Return the expected time of work, None if one of its tables does not exist."""
        sizes = {each["table"]: self.size(each["table"]) for each in work}
        return milliseconds(work, sizes, self._measured_speed())

    def blockers(self, locks: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the transactions, also prepared ones, that have blocked these locks for longer than a moment."""
        return blockers.blockers(self._ask, {name: mode for name, mode in locks.items() if self.size(name)})

    def holdups(self, tables: Iterable[str]) -> list[dict[str, Any]]:
        """Return the causes that delay any run on this server, except those that the login may not see."""
        try:
            return blockers.holdups(self._ask, list(tables))
        except psycopg2.Error:
            return []

    def _measured_speed(self) -> Speed:
        """Return this server's reading speed, from a sample of the largest table in the checks."""
        if self._speed is None:
            self._speed = Speed(_READS_PER_S)
            known = {name: size for name, size in self._sizes.items() if size is not None}
            largest = max(known, key=lambda name: known[name].heap_bytes, default=None)
            if largest is not None and known[largest].heap_bytes >= _SAMPLE_PAGES * 8192:
                self._speed = self._sample(largest, known[largest])
        return self._speed

    def _sample(self, table: str, size: Size) -> Speed:
        share = _SAMPLE_PAGES * 8192 / size.heap_bytes
        began = time.monotonic()
        try:
            # The name is as PostgreSQL itself writes it.
            [(rows,)] = self._query(f"SELECT count(*) FROM {table} TABLESAMPLE SYSTEM ({100 * share:.6f})")  # noqa: S608
        except psycopg2.errors.QueryCanceled:
            return Speed(_SAMPLE_PAGES * 8192 / (self._timeout_ms / 1000))
        except psycopg2.Error:
            return Speed(_READS_PER_S)
        took_ms = max((time.monotonic() - began) * 1000, _LEAST_SAMPLE_MS)
        reads = min(_SAMPLE_PAGES * 8192 / took_ms * 1000, _READS_PER_S * 10)
        return Speed(float(reads), max(float(rows) / took_ms, 1.0))

    def _ask(self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query of our own, with the names of the backend's tables as values.

        PostgreSQL resolves the functions and operators of a cursor where it is declared, and calls them where it is
        read. So nothing that others put into the backend's schemas is called, and `to_regclass` finds the tables there.
        """
        # psycopg2 takes a percent sign for a parameter where there are some.
        path = self._path.replace("%", "%%") if parameters else self._path
        return self._query(
            f"SET LOCAL search_path = {SEARCH_PATH}; DECLARE preflight_query NO SCROLL CURSOR FOR {sql};"
            f" SET LOCAL search_path = {path}; FETCH ALL FROM preflight_query",
            parameters,
        )

    def _query(self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query whose names are the backend's."""
        timeout_ms = min(self._timeout_ms, int(1000 * self._deadline.left()))
        if timeout_ms <= 0:
            raise psycopg2.errors.QueryCanceled("there is no time left for the preflight")
        path = self._path.replace("%", "%%") if parameters else self._path
        settings = (
            f"SET LOCAL search_path = {path};"
            # A policy would hide rows that a constraint counts; this raises an error instead. One process is enough.
            " SET LOCAL row_security = off; SET LOCAL max_parallel_workers_per_gather = 0; "
        )
        with read_only(self._session.connection, timeout_ms) as cursor:
            cursor.execute(settings + sql, parameters or None)
            return cursor.fetchall()


def uses(query: str, objects: Iterable[str]) -> bool:
    """Return whether a query calls one of these functions, or casts to one of these types. Others do not count.

    The objects are named as in `lambda_migrate.database.schema`, such as ``function lower_name(text)``.
    """
    for kind, _, name in (each.partition(" ") for each in objects):
        if kind in {"function", "aggregate"}:
            if re.search(rf'(?<![\w."]){re.escape(name.partition("(")[0])}\(', query):
                return True
        elif kind in {"type", "domain"} and re.search(rf"(?:::|'){re.escape(name)}(?!\w)", query):
            return True
    return False


def _sampled(query: str, table: str, share: float) -> str | None:
    """Return the reviewer's query about a sample of its table's pages, the same at each place, None if it has none."""
    sample = f"TABLESAMPLE SYSTEM ({100 * share:.6f}) REPEATABLE (1)"
    source = re.compile(rf"( FROM (?:ONLY )?{re.escape(table)}(?: AS here)?)(?= WHERE | GROUP BY |\)|$)")
    found, count = source.subn(rf"\1 {sample}", query)
    return found if count else None
