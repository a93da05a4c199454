"""Asks a database what a revision will meet there: its rows and sizes, its violations, and who is in the way.

Nothing is changed, and no row leaves the server: a query's answer is a number. Each query has a transaction of its own
that cannot write, ends after PREFLIGHT_TIMEOUT_MS, and gives up at once where it would wait for a lock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from lambda_migrate.database.session import answering
from lambda_migrate.invocation.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from lambda_migrate.database.session import Session

_SHARE = 0.25
# Violations are counted so far. More would take longer and tell nobody more.
MOST_VIOLATIONS = 1000

_LOCK_TIMEOUT_MS = 1000
# Beyond the statement's own timeout the server does not answer at all.
_GRACE_S = 5
# A sample of so many pages at most shows how fast this server reads: 16 MB.
_SAMPLE_PAGES = 2048
# A sample that ends sooner says nothing but how long a round trip takes.
_LEAST_SAMPLE_MS = 5
# What is assumed without a sample, in bytes a second, and how much slower than reading it is to write a table anew and
# to build its indexes. The estimates err on the long side: production is busy, and its cache is cold.
_READS_PER_S = 100e6
_REWRITE_FACTOR = 6
_CAUTION = 2
# Of each row: reading, comparing, looking up.
_ROW_MS = 0.001

# Objects that an earlier pending revision makes are not there yet.
_NOT_THERE = (
    psycopg2.errors.UndefinedTable,
    psycopg2.errors.UndefinedColumn,
    psycopg2.errors.UndefinedFunction,
    psycopg2.errors.UndefinedObject,
    psycopg2.errors.InvalidSchemaName,
    psycopg2.errors.DatatypeMismatch,
)
_SAYS_NOTHING = (psycopg2.errors.QueryCanceled, psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected)


@dataclass(frozen=True)
class Table:
    """A table as it is here: an estimate of its rows, and its bytes with indexes and TOAST."""

    rows: int
    bytes: int
    heap_pages: int


class Questions:
    """Asks about several revisions on one session, each thing once. ``schema`` is where unqualified names are."""

    def __init__(self, session: Session, schema: str, timeout_ms: int) -> None:
        self._session = session
        self._path = f"pg_catalog, {psycopg2.extensions.quote_ident(schema, session.connection)}"
        self._timeout_ms = timeout_ms
        # All questions together take at most a quarter of the time: what is left is for the migration.
        self._until = session.deadline.left() * (1 - _SHARE)
        self._tables: dict[str, Table | None] = {}
        self._reads_per_s: float | None = None

    def table(self, name: str) -> Table | None:
        """Return a table, or None if there is none of this name, which is as SQL has it."""
        if name not in self._tables:
            rows = self._ask_one_of(
                "SELECT greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid),"
                " pg_relation_size(c.oid) / current_setting('block_size')::bigint,"
                " (SELECT coalesce(sum(greatest(p.reltuples, 0)), 0)::bigint FROM pg_partition_tree(c.oid) t"
                "  JOIN pg_class p ON p.oid = t.relid WHERE t.isleaf AND c.relkind = 'p'),"
                " (SELECT coalesce(sum(pg_total_relation_size(t.relid)), 0)::bigint FROM pg_partition_tree(c.oid) t"
                "  WHERE t.isleaf AND c.relkind = 'p')"
                " FROM pg_class c WHERE c.oid = to_regclass(%s)",
                # Without the indexes, but it waits for nobody who has locked the table.
                "SELECT greatest(c.reltuples, 0)::bigint, c.relpages * current_setting('block_size')::bigint,"
                " c.relpages, 0, 0 FROM pg_class c WHERE c.oid = to_regclass(%s)",
                name,
            )
            self._tables[name] = (
                Table(int(rows[0][0] + rows[0][3]), int(rows[0][1] + rows[0][4]), int(rows[0][2])) if rows else None
            )
        return self._tables[name]

    def violations(self, query: str) -> int | str:
        """Return how many rows a query finds, or the result that the check has instead."""
        try:
            rows = self._ask(
                f"SELECT count(*) FROM (SELECT 1 FROM ({query}) AS found LIMIT {MOST_VIOLATIONS}) AS counted"  # noqa: S608 - of the reviewer
            )
        except _NOT_THERE:
            return "depends_on_pending"
        except (*_SAYS_NOTHING, psycopg2.Error):
            # Also a division by zero, a cast that fails: the query says nothing about the rows then.
            return "timed_out"
        return int(rows[0][0])

    def milliseconds(self, reads: Collection[str], rewrites: Collection[str]) -> int | None:
        """Return how long it takes to read and rewrite these tables, erring long. None if one is not there."""
        total = 0.0
        for name in {*reads, *rewrites}:
            table = self.table(name)
            if table is None:
                return None
            factor = _REWRITE_FACTOR if name in rewrites else 1
            total += factor * (table.bytes / self._speed() * 1000 + table.rows * _ROW_MS)
        return round(_CAUTION * total)

    def blockers(self, tables: Collection[str]) -> list[dict[str, Any]]:
        """Return who holds these tables now for longer than a moment: transactions, also prepared ones."""
        rows = self._ask(
            "SELECT a.pid, a.application_name, coalesce(a.xact_start, a.state_change, p.prepared)::text,"
            " l.relation::regclass::text, p.gid FROM pg_locks l"
            " LEFT JOIN pg_stat_activity a ON a.pid = l.pid"
            " LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND l.virtualtransaction = '-1/' || p.transaction::text"
            " WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY (%s::text[]::regclass[])"
            " AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())"
            " AND (a.pid IS NULL OR (a.pid <> pg_backend_pid()"
            # NULL for a session of another role, unless the login may read all of pg_stat_activity.
            "  AND coalesce(coalesce(a.xact_start, a.state_change) < clock_timestamp() - interval '1 second', true)))"
            " ORDER BY 3, 1, 4 LIMIT 20",
            ([name for name in tables if self.table(name) is not None],),
        )
        return [
            {
                "pid": pid,
                "application_name": name if pid is not None else f"prepared transaction {gid}",
                "since": since,
                "table": table,
            }
            for pid, name, since, table, gid in rows
        ]

    def _speed(self) -> float:
        """Return how many bytes this server reads in a second, by a sample of the largest table asked about."""
        if self._reads_per_s is None:
            self._reads_per_s = _READS_PER_S
            known = {name: table for name, table in self._tables.items() if table is not None}
            largest = max(known, key=lambda name: known[name].heap_pages, default=None)
            if largest is not None and known[largest].heap_pages >= _SAMPLE_PAGES:
                self._reads_per_s = self._sampled(largest, known[largest].heap_pages)
        return self._reads_per_s

    def _sampled(self, table: str, pages: int) -> float:
        percent = 100 * _SAMPLE_PAGES / pages
        began = time.monotonic()
        try:
            # The name is as PostgreSQL itself writes it.
            self._ask(f"SELECT count(*) FROM {table} TABLESAMPLE SYSTEM ({percent:.6f})")  # noqa: S608
        except psycopg2.errors.QueryCanceled:
            return _SAMPLE_PAGES * 8192 / (self._timeout_ms / 1000)
        except psycopg2.Error:
            return _READS_PER_S
        took_ms = max((time.monotonic() - began) * 1000, _LEAST_SAMPLE_MS)
        return float(min(_SAMPLE_PAGES * 8192 / took_ms * 1000, _READS_PER_S * 10))

    def _ask_one_of(self, sql: str, otherwise: str, name: str) -> list[tuple[Any, ...]]:
        try:
            return self._ask(sql, (name,))
        except _SAYS_NOTHING:
            return self._ask(otherwise, (name,))

    def _ask(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        connection = self._session.connection
        timeout_ms = min(self._timeout_ms, int(1000 * (self._session.deadline.left() - self._until)))
        if timeout_ms <= 0:
            raise psycopg2.errors.QueryCanceled("there is no time left for the preflight")
        # psycopg2 takes a percent sign for a parameter where there are some.
        path = self._path.replace("%", "%%") if parameters else self._path
        settings = (
            f"BEGIN READ ONLY; SET LOCAL statement_timeout = {timeout_ms};"
            f" SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}; SET LOCAL search_path = {path}; "
        )
        with answering(connection, timeout_ms / 1000 + _GRACE_S), connection.cursor() as cursor:
            try:
                cursor.execute(settings + sql, tuple(parameters) or None)
                return cursor.fetchall()
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                if connection.closed:
                    raise DatabaseUnavailable("the connection to the database was lost") from None
                raise error from None
            finally:
                if not connection.closed:
                    cursor.execute("ROLLBACK")


def preflight_of(
    questions: Questions,
    facts: Mapping[str, Any],
    touched: Collection[str],
    changed: Collection[str],
    max_block_s: float,
) -> dict[str, Any]:
    """Return what a revision will meet in the database, as docs/contract.md has ``preflight``.

    ``facts`` is what the reviewer measured. ``touched`` are the tables that earlier pending revisions alter, and
    ``changed`` those whose rows they change: a check on these may have another result by then.
    """
    try:
        return _preflight_of(questions, facts, touched, changed, max_block_s)
    except psycopg2.Error:
        # A missing privilege, for example. A look must not keep a migration from running.
        return {"verdict": "unknown", "tables": [], "checks": [], "blockers": []}


def _preflight_of(
    questions: Questions,
    facts: Mapping[str, Any],
    touched: Collection[str],
    changed: Collection[str],
    max_block_s: float,
) -> dict[str, Any]:
    tables = [_table(questions, fact) for fact in facts["tables"]]
    checks = [_check(questions, check, touched, changed) for check in facts["checks"]]
    results = {check["result"] for check in checks}
    slow = any(table["blocks"] != "nothing" and (table["estimated_ms"] or 0) > max_block_s * 1000 for table in tables)
    unknown = results & {"timed_out", "depends_on_pending"} or any(table["estimated_ms"] is None for table in tables)
    try:
        blockers = questions.blockers([table["table"] for table in tables])
    except psycopg2.Error:
        # What was counted stands.
        blockers = []
    verdict = "fails" if "failed" in results else "slow" if slow else "unknown" if unknown else "ok"
    return {
        "verdict": verdict,
        "tables": tables,
        "checks": checks,
        "blockers": blockers,
    }


def _table(questions: Questions, fact: Mapping[str, Any]) -> dict[str, Any]:
    try:
        table = questions.table(fact["table"])
    except psycopg2.Error:
        table = None
    held = fact["while_locked"]
    return {
        "table": fact["table"],
        "rows": table.rows if table is not None else None,
        "bytes": table.bytes if table is not None else None,
        "lock": fact["lock"],
        "blocks": fact["blocks"],
        "reads_all": fact["reads_all"],
        "rewrites": fact["rewrites"],
        "estimated_ms": questions.milliseconds(held["reads"], held["rewrites"]) if table is not None else None,
    }


def _check(
    questions: Questions, check: Mapping[str, Any], touched: Collection[str], changed: Collection[str]
) -> dict[str, Any]:
    """Return a check with its result. Rows that are changed before it may pass or fail by then."""
    found: int | str = "depends_on_pending"
    if check["query"] is not None:
        found = questions.violations(check["query"])
    count = found if isinstance(found, int) else None
    later = check["changed_before"] or check["table"] in changed
    result = found if isinstance(found, str) else "passed" if found == 0 else "failed"
    if (later and count is not None) or (result == "timed_out" and check["table"] in touched):
        result = "depends_on_pending"
    return {
        "check": check["check"],
        "table": check["table"],
        "columns": list(check["columns"]),
        "result": result,
        "violations": count,
        "query": check["query"],
    }
