"""Sessions of our own on the target: what they set, what they refuse, and what they read of the database."""

from __future__ import annotations

import select
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions

from lambda_migrate.database.connect import connect, pauses
from lambda_migrate.invocation.deadline import within
from lambda_migrate.invocation.errors import (
    AuthenticationFailed,
    ConfigurationError,
    DatabaseUnavailable,
    InvalidRequest,
    SecretUnavailable,
)
from lambda_migrate.invocation.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.database.secret import CredentialStore
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.settings import Settings

Connection = psycopg2.extensions.connection

OLDEST_SERVER = 13
# The first versions with idle_session_timeout and with client_connection_check_interval.
HAS_IDLE_TIMEOUT = HAS_CONNECTION_CHECK = 14

# PostgreSQL's limit for application_name is NAMEDATALEN - 1.
_APPLICATION_NAME_BYTES = 63

# A password that was just rotated reaches the secret a moment after the server, or the other way round.
_ROTATION_S = 5
# While the roles of two servers change, the name may lead to the one that does not write yet, or no longer.
_FAILOVER_S = 10
# The longest that one of our own statements may take: none does any work. libpq itself would wait for ever where the
# network swallows what is sent, or the server hangs.
_ANSWER_S = 10
# An abandoned lookup of a secret: longer than any of its own attempts and timeouts together.
_SECRET_S = 20

# A session that only holds a lock answers the server at least this often (see `Session.ping`); one that does not is
# ended by the server and frees its lock, also when the network vanished without a word.
IDLE_SESSION_TIMEOUT_S = 30
# The same for a session in a transaction, where a revision may compute for a while between two statements.
IDLE_IN_TRANSACTION_TIMEOUT_S = 55
# How soon the server notices, in the middle of a statement, that we were killed (PostgreSQL 14 and later).
CONNECTION_CHECK_MS = 500


@dataclass(frozen=True)
class Server:
    """Which server and database a session is on. Two sessions on the same have equal values."""

    version: int
    started: str
    database: str


@dataclass(frozen=True)
class Session:
    """Our own connection, in autocommit, beside the one that env.py makes: it holds the lock and tells the truth.

    ``pid`` is its backend, as the server knows it; a proxy may have told the client another one.
    """

    connection: Connection
    pid: int
    server: Server
    credentials: Credentials
    deadline: Deadline

    def rows(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement.

        Raises:
            DatabaseUnavailable: the connection is gone, or there was no answer in time.
        """
        return _rows(self.connection, self.deadline, sql, parameters)

    def close(self) -> None:
        """End the session; the locks it holds are released."""
        self.connection.close()


def _rows(
    connection: Connection, deadline: Deadline, sql: str, parameters: tuple[object, ...] | dict[str, object]
) -> list[tuple[Any, ...]]:
    seconds = deadline.patience(_ANSWER_S)
    # For the time of this statement only: in this mode psycopg2 has no COPY, and a revision may want that.
    psycopg2.extensions.set_wait_callback(partial(_wait, time.monotonic() + seconds))
    try:
        with connection.cursor() as cursor:
            # A name in it may hold a percent sign.
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
    """Wait for the server's answer, but not for ever."""
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        poller = select.poll()
        poller.register(connection, select.POLLIN if state == psycopg2.extensions.POLL_READ else select.POLLOUT)
        if not poller.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError


def application_name(function_name: str, request_id: str) -> str:
    """What pg_stat_activity shows: the end of the function's name, where its stage is, and the whole request id."""
    room = _APPLICATION_NAME_BYTES - len(request_id) - 1
    return f"{function_name[-room:].lstrip('-') if room > 0 else ''}/{request_id}"[-_APPLICATION_NAME_BYTES:]


def open_session(
    settings: Settings, store: CredentialStore, deadline: Deadline, name: str, schema: str | None = None
) -> Session:
    """Connect with the stage's credentials, reading the secret again when the server refuses them.

    CONNECT_TIMEOUT_S counts within the deadline. ``name`` is the session's application_name.

    Raises:
        AuthenticationFailed: refused, also with what the secret holds by now.
        DatabaseUnavailable: no connection within the budget; says whether it was the name, the route, the port, TLS
            or the server.
        ConfigurationError: the database does not exist, is read-only, or is too old.
        InvalidRequest: there is no such schema in it.
    """
    budget = deadline.until(settings.connect_timeout_s)
    credentials = _secret(deadline, lambda: store.get(settings))
    rotation: Deadline | None = None
    failover: Deadline | None = None
    for pause in pauses():
        try:
            return _session(connect(credentials, budget, deadline, name), credentials, deadline, schema)
        except AuthenticationFailed:
            fresh = _secret(deadline, lambda: store.refresh(settings))
            if not _differ(fresh, credentials, settings):
                # Rotation changes the server first and the secret a moment later.
                rotation = rotation or budget.until(_ROTATION_S)
                if rotation.left() < pause:
                    raise
                time.sleep(pause)
            elif budget.left() <= 0:
                raise
            credentials = fresh
        except _StillReplica as replica:
            failover = failover or budget.until(_FAILOVER_S)
            if failover.left() < pause:
                raise ConfigurationError(str(replica)) from None
            time.sleep(pause)
    raise AssertionError("unreachable: the pauses never end")


class _StillReplica(Exception):  # noqa: N818 - it may pass
    """The server only follows another one: a mistake, or the moment before it takes over."""


def is_rotated(settings: Settings, store: CredentialStore, deadline: Deadline, used: Credentials) -> bool:
    """Read the secret again and tell whether it holds another login by now."""
    return _differ(_secret(deadline, lambda: store.refresh(settings)), used, settings)


def _differ(fresh: Credentials, used: Credentials, settings: Settings) -> bool:
    # An IAM token is another one each time.
    return fresh != used and (settings.auth != "iam" or fresh.user != used.user)


def _secret(deadline: Deadline, read: Callable[[], Credentials]) -> Credentials:
    try:
        return within(deadline.patience(_SECRET_S), read)
    except TimeoutError as late:
        raise SecretUnavailable(f"the secret could not be read before Lambda's timeout: {late}") from None


def _session(connection: Connection, credentials: Credentials, deadline: Deadline, schema: str | None) -> Session:
    try:
        return _checked_session(connection, credentials, deadline, schema)
    except BaseException:
        connection.close()
        raise


def _checked_session(
    connection: Connection, credentials: Credentials, deadline: Deadline, schema: str | None
) -> Session:
    connection.autocommit = True
    version = connection.server_version // 10000
    if version < OLDEST_SERVER:
        raise ConfigurationError(
            f"{credentials.host}:{credentials.port} is PostgreSQL {version}; {OLDEST_SERVER} or later is needed"
        )
    # One round trip. The settings before SELECT release the lock when we are gone without a word, and let the server
    # give up what we would no longer wait for.
    settings = {
        "tcp_keepalives_idle": 10,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 3,
        "tcp_user_timeout": IDLE_SESSION_TIMEOUT_S * 1000,
        "statement_timeout": _ANSWER_S * 1000,
    }
    if version >= HAS_IDLE_TIMEOUT:
        settings["idle_session_timeout"] = IDLE_SESSION_TIMEOUT_S * 1000
    [(pid, started, database, replica, read_only, schema_exists)] = _rows(
        connection,
        deadline,
        "".join(f"SET {name} = {value};" for name, value in settings.items())
        + "SELECT pg_backend_pid(), pg_postmaster_start_time()::text, current_database(), pg_is_in_recovery(),"
        " current_setting('transaction_read_only') = 'on',"
        " %(schema)s::text IS NULL OR to_regnamespace(quote_ident(%(schema)s)) IS NOT NULL",
        {"schema": schema},
    )
    what = f"{credentials.host}:{credentials.port} is %s: migrations need the writer; correct the secret's host"
    if replica:
        raise _StillReplica(what % "a read replica")
    if read_only:
        raise ConfigurationError(what % "read-only")
    if not schema_exists:
        raise InvalidRequest(f"there is no schema {schema!r} in database {database!r}; create it first")
    return Session(connection, pid, Server(version, started, database), credentials, deadline)


def invalid_indexes(session: Session) -> list[dict[str, str]]:
    """The indexes that an interrupted CREATE INDEX CONCURRENTLY left behind and that nobody is building now."""
    rows = session.rows(
        "SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text FROM pg_index i"
        " WHERE NOT i.indisvalid"
        " AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)"
        " ORDER BY 1"
    )
    return [{"index": index, "table": table} for index, table in rows]


def versions(session: Session, schema: str, table: str) -> tuple[str, ...]:
    """The revisions in a version table as another session sees them: what is committed, and nothing else."""
    identifier = psycopg2.extensions.quote_ident
    qualified = f"{identifier(schema, session.connection)}.{identifier(table, session.connection)}"
    if not session.rows("SELECT to_regclass(%s) IS NOT NULL", (qualified,))[0][0]:
        return ()
    return tuple(sorted(row[0] for row in session.rows(f"SELECT version_num FROM {qualified}")))  # noqa: S608 - quoted
