"""The function's own session on the target, separate from env.py's, and its queries."""

from __future__ import annotations

import select
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from lambda_migrate.database import untrusted
from lambda_migrate.invocation.errors import DatabaseUnavailable
from lambda_migrate.invocation.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lambda_migrate.database.common import Server
    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.database.untrusted import Findings
    from lambda_migrate.invocation.deadline import Deadline

Connection = psycopg2.extensions.connection

# Timeout of the function's own statements, all of which are short. libpq itself would wait for ever if the network
# dropped packets or the server hung.
ANSWER_S = 10
# A session that holds the lock runs a statement more often than this. The server ends one that does not and releases
# its lock, even if the network vanished without a FIN.
IDLE_SESSION_TIMEOUT_S = 30
# A look gives up where it would wait longer for a lock.
_LOCK_TIMEOUT_MS = 1000
# Beyond a statement's own timeout the server does not answer at all.
_GRACE_S = 5


@dataclass(frozen=True)
class Session:
    """A connection in autocommit mode. It holds the migration lock and reads the version table.

    Its search_path is pg_catalog alone, and it cannot write. ``path`` has the existing schemas of the search_path with
    which it began, and ``path_is_whole`` is False if that path names others, too. ``pid`` is its backend from
    ``pg_backend_pid()``. ``version_table`` is the schema of the version table, if it was found and the login owns it.
    `find_version_table` finds it with other owners, too. ``encrypted`` is True if the connection is encrypted up to the
    server. ``pooled`` is True if a pooler in session mode is in between. Then closing the session returns it to its
    pool.
    """

    connection: Connection
    pid: int
    server: Server
    credentials: Credentials
    deadline: Deadline
    path: tuple[str, ...] = ()
    path_is_whole: bool = True
    version_table: str | None = None
    encrypted: bool = False
    pooled: bool = False

    @property
    def default_schema(self) -> str | None:
        """The schema in which env.py's session creates by default."""
        return self.path[0] if self.path else None

    def rows(self, sql: str, parameters: tuple[object, ...] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of one statement.

        Raises:
            DatabaseUnavailable: the connection is lost, or there was no answer in time.
        """
        return rows_of(self.connection, self.deadline, sql, parameters)

    def close(self) -> None:
        """End the session, which releases its locks. A pool gets its server session back as it was."""
        if self.pooled and not self.connection.closed:
            with suppress(DatabaseUnavailable):
                self.rows("RESET ALL; SELECT pg_advisory_unlock_all()")
        self.connection.close()


def rows_of(
    connection: Connection, deadline: Deadline, sql: str, parameters: tuple[object, ...] | Mapping[str, object]
) -> list[tuple[Any, ...]]:
    """Return the rows of one statement on a connection in autocommit, or raise as `Session.rows` does."""
    seconds = deadline.patience(ANSWER_S)
    try:
        with answering(connection, seconds), connection.cursor() as cursor:
            # Without parameters psycopg2 does not interpret percent signs, and names may contain some.
            cursor.execute(sql, parameters or None)
            return cursor.fetchall()
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        what = "the connection to the database was lost" if connection.closed else "the database could not answer"
        raise DatabaseUnavailable(f"{what}: {one_line(error)}") from None


@contextmanager
def answering(connection: Connection, seconds: float) -> Iterator[None]:
    """Limit the time for which statements in this block wait for the server.

    Raises:
        DatabaseUnavailable: the time is over, and the connection is closed.
    """
    # For these statements only: psycopg2 has no COPY while a wait callback is set, and a revision may use COPY.
    psycopg2.extensions.set_wait_callback(partial(_wait, time.monotonic() + seconds))
    try:
        yield
    except TimeoutError:
        connection.close()
        raise DatabaseUnavailable(f"the server did not answer within {seconds:.1f} s") from None
    finally:
        psycopg2.extensions.set_wait_callback(None)


@contextmanager
def read_only(connection: Connection, timeout_ms: int) -> Iterator[psycopg2.extensions.cursor]:
    """Begin a transaction that cannot write, in which a statement ends after a timeout, and roll it back at the end.

    Raises:
        DatabaseUnavailable: the connection is lost, or there was no answer in time.
    """
    with answering(connection, timeout_ms / 1000 + _GRACE_S), connection.cursor() as cursor:
        try:
            cursor.execute(
                f"BEGIN READ ONLY; SET LOCAL statement_timeout = {timeout_ms};"
                f" SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}"
            )
            yield cursor
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            if connection.closed:
                raise DatabaseUnavailable("the connection to the database was lost") from None
            raise error from None
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK")


def _wait(until: float, connection: Connection) -> None:
    """Wait for the server's answer until ``until``, on the clock of `time.monotonic`."""
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        poller = select.poll()
        poller.register(connection, select.POLLIN if state == psycopg2.extensions.POLL_READ else select.POLLOUT)
        if not poller.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError


def invalid_indexes(session: Session) -> list[dict[str, str]]:
    """Return the invalid indexes that an interrupted CREATE INDEX CONCURRENTLY left, without those being built now.

    A name has its schema unless that is in the search_path of env.py's session.
    """
    prefix = "CASE WHEN n.nspname = ANY(%(path)s::name[]) THEN '' ELSE quote_ident(n.nspname) || '.' END"
    rows = session.rows(
        f"SELECT {prefix} || quote_ident(c.relname), {prefix} || quote_ident(t.relname) FROM pg_index i"  # noqa: S608 - ours
        " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid"
        " JOIN pg_namespace n ON n.oid = t.relnamespace"
        " WHERE NOT i.indisvalid"
        " AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)"
        " ORDER BY 1",
        {"path": list(session.path)},
    )
    return [{"index": index, "table": table} for index, table in rows]


def find_untrusted(session: Session, schema: str | None) -> Findings:
    """Return who could run code with the rights of the login, in its search_path or in the schema of a request."""
    schemas = {*session.path, *([schema] if schema is not None else ())}
    sql = untrusted.query(sorted(schemas), missing=not session.path_is_whole)
    return untrusted.findings(session.rows(sql))
