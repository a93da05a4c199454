"""The function's own session on the target, beside the one that env.py opens, and its queries."""

from __future__ import annotations

import select
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from lambda_migrate.invocation.errors import DatabaseUnavailable
from lambda_migrate.invocation.redaction import one_line

if TYPE_CHECKING:
    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.invocation.deadline import Deadline

Connection = psycopg2.extensions.connection

# The first versions with idle_session_timeout and with client_connection_check_interval.
HAS_IDLE_TIMEOUT = HAS_CONNECTION_CHECK = 14

# Timeout of the function's own statements, all of which are short. libpq itself would wait for ever if the network
# dropped packets or the server hung.
ANSWER_S = 10
# A session that holds the lock runs a statement more often than this. The server ends one that does not and releases
# its lock, even if the network vanished without a FIN.
IDLE_SESSION_TIMEOUT_S = 30
# The same for a session in a transaction. It is longer, because a revision may compute between two statements.
IDLE_IN_TRANSACTION_TIMEOUT_S = 55
# How often the server checks, during a statement, that its client still exists (PostgreSQL 14 and later).
CONNECTION_CHECK_MS = 500


@dataclass(frozen=True)
class Server:
    """The server and database of a session. Two sessions on the same database have equal values."""

    version: int
    started: str
    database: str


@dataclass(frozen=True)
class Session:
    """A connection in autocommit mode. It holds the migration lock and reads the version table.

    ``default_schema`` is the first existing schema of its search_path, or None. ``pid`` is its backend from
    ``pg_backend_pid()``. ``pooled`` is True if a pooler in session mode is in between. Then closing the session returns
    it to its pool.
    """

    connection: Connection
    pid: int
    server: Server
    credentials: Credentials
    deadline: Deadline
    default_schema: str | None = None
    pooled: bool = False

    def rows(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
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
    connection: Connection, deadline: Deadline, sql: str, parameters: tuple[object, ...] | dict[str, object]
) -> list[tuple[Any, ...]]:
    """Return the rows of one statement on a connection in autocommit, or raise as `Session.rows` does."""
    seconds = deadline.patience(ANSWER_S)
    # For this statement only: psycopg2 has no COPY while a wait callback is set, and a revision may use COPY.
    psycopg2.extensions.set_wait_callback(partial(_wait, time.monotonic() + seconds))
    try:
        with connection.cursor() as cursor:
            # Without parameters psycopg2 does not interpret percent signs, and names may contain some.
            cursor.execute(sql, parameters or None)
            return cursor.fetchall()
    except TimeoutError:
        connection.close()
        raise DatabaseUnavailable(f"the server did not answer within {seconds:.1f} s") from None
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        what = "the connection to the database was lost" if connection.closed else "the database could not answer"
        raise DatabaseUnavailable(f"{what}: {one_line(error)}") from None
    finally:
        psycopg2.extensions.set_wait_callback(None)


def _wait(until: float, connection: Connection) -> None:
    """Wait for the server's answer until ``until``, on the clock of `time.monotonic`."""
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        poller = select.poll()
        poller.register(connection, select.POLLIN if state == psycopg2.extensions.POLL_READ else select.POLLOUT)
        if not poller.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError


def invalid_indexes(session: Session) -> list[dict[str, str]]:
    """Return the invalid indexes that an interrupted CREATE INDEX CONCURRENTLY left, without those being built now."""
    rows = session.rows(
        "SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text FROM pg_index i"
        " WHERE NOT i.indisvalid"
        " AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)"
        " ORDER BY 1"
    )
    return [{"index": index, "table": table} for index, table in rows]


def versions(session: Session, schema: str, table: str, role: str | None) -> tuple[str, ...]:
    """Return the committed revisions in a version table, sorted; none if there is no such table.

    ``role`` is the role that env.py set, if any: the login may not inherit its rights.
    """

    def quoted(name: str) -> str:
        return str(psycopg2.extensions.quote_ident(name, session.connection))

    qualified = f"{quoted(schema)}.{quoted(table)}"

    def read(acting: str) -> tuple[str, ...]:
        if not session.rows(f"{acting}SELECT to_regclass(%s) IS NOT NULL", (qualified,))[0][0]:
            return ()
        rows = session.rows(f"{acting}SELECT version_num FROM {qualified}")  # noqa: S608 - quoted
        return tuple(sorted(row[0] for row in rows))

    try:
        return read(f"SET LOCAL ROLE {quoted(role)}; " if role else "")
    except psycopg2.errors.InsufficientPrivilege:
        # If env.py logs in as somebody else, this login may be no member of the role, and need not be.
        if role is None:
            raise
        return read("")
