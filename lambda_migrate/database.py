"""Reaching the server within a budget, what every session of ours sets, and the migration lock."""

from __future__ import annotations

import random
import re
import socket
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions

from lambda_migrate.contract import (
    AuthenticationFailed,
    ConfigurationError,
    DatabaseUnavailable,
    InvalidRequest,
    MigrationLocked,
)
from lambda_migrate.telemetry import log, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_migrate.credentials import Credentials, CredentialStore
    from lambda_migrate.deadline import Deadline
    from lambda_migrate.settings import Settings

Connection = psycopg2.extensions.connection

OLDEST_SERVER = 13
# The first versions with idle_session_timeout and with client_connection_check_interval.
HAS_IDLE_TIMEOUT = HAS_CONNECTION_CHECK = 14

# The first half of the key of every migration lock, "MIGR" in ASCII; the second half is the schema's checksum.
LOCK_CLASS = 0x4D494752

# PostgreSQL's limit for application_name is NAMEDATALEN - 1.
_APPLICATION_NAME_BYTES = 63

# One attempt to connect; libpq counts whole seconds. A new instance of a paused Aurora takes longer and is tried again.
_ATTEMPT_S = 5
# A server that does not even answer on TCP is behind a missing route or rule: nobody should wait a minute to be told.
_NO_ROUTE_S = 12
# A password that was just rotated reaches the secret a moment after the server, or the other way round.
_ROTATION_S = 5
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)
_LOCK_POLL_S = 0.5
_LOCK_WAITING_LOG_S = 10

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
class Holder:
    """A session that stands in the way, as pg_stat_activity tells it. ``since`` is in ISO 8601."""

    pid: int
    application_name: str
    since: str

    def __str__(self) -> str:
        return f"{self.application_name or 'unnamed session'} (pid {self.pid}, since {self.since})"


@dataclass(frozen=True)
class Session:
    """Our own connection, in autocommit, beside the one that env.py makes: it holds the lock and tells the truth."""

    connection: Connection
    server: Server
    credentials: Credentials

    def rows(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement.

        Raises:
            DatabaseUnavailable: the connection is gone.
        """
        try:
            with self.connection.cursor() as cursor:
                # Without parameters psycopg2 leaves a percent sign in an identifier alone.
                cursor.execute(sql, parameters or None)
                return cursor.fetchall()
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            if not self.connection.closed:
                raise
            raise DatabaseUnavailable(f"the connection to the database was lost: {one_line(error)}") from None

    def close(self) -> None:
        """End the session; the locks it holds are released."""
        self.connection.close()


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
    credentials = store.get(settings)
    rotation: Deadline | None = None
    for pause in _pauses():
        try:
            return _session(_connect(credentials, budget, name), credentials, schema)
        except AuthenticationFailed:
            fresh = store.refresh(settings)
            if fresh == credentials:
                # Rotation changes the server first and the secret a moment later.
                rotation = rotation or budget.until(_ROTATION_S)
                if rotation.left() < pause:
                    raise
                time.sleep(pause)
            credentials = fresh
    raise AssertionError("unreachable: the pauses never end")


def _connect(credentials: Credentials, budget: Deadline, name: str) -> Connection:
    """Try until it works, until it cannot work, or until the budget is used up."""
    started = time.monotonic()
    for attempt, pause in enumerate(_pauses(), start=1):
        try:
            return psycopg2.connect(
                host=credentials.host,
                port=credentials.port,
                dbname=credentials.database,
                user=credentials.user,
                password=credentials.password,
                sslmode=credentials.sslmode,
                sslrootcert=str(credentials.sslrootcert),
                application_name=name,
                connect_timeout=max(2, min(_ATTEMPT_S, round(budget.left()))),
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
            )
        except psycopg2.OperationalError as error:
            message = str(error)
        cause = _cause(message, credentials)
        waited = time.monotonic() - started
        hopeless = not cause.passing or (cause.no_route and waited + pause > _NO_ROUTE_S)
        if hopeless or budget.left() <= pause:
            told = _told(cause, message, credentials)
            raise cause.error(f"{told} (tried {attempt} time{'s' if attempt > 1 else ''} in {waited:.1f} s)")
        time.sleep(pause)
    raise AssertionError("unreachable: the pauses never end")


@dataclass(frozen=True)
class _Cause:
    """A reason for which no connection was made, known by the words of libpq or of the server.

    A failed connection carries no SQLSTATE in psycopg2. ``passing`` says that trying again can help, ``no_route`` that
    nothing was reached at all. ``told`` may name ``where said host port user database sslmode ca``.
    """

    words: str
    error: type[AuthenticationFailed | ConfigurationError | DatabaseUnavailable]
    told: str
    passing: bool = False
    no_route: bool = False


_WRONG_PASSWORD = r"password authentication failed|PAM authentication failed|no password supplied|SCRAM"  # noqa: S105
_SILENCE = r"timeout expired|timed out|No route to host|Network is unreachable"

_CAUSES = (
    _Cause(
        _WRONG_PASSWORD,
        AuthenticationFailed,
        "{where} refused the password of user {user!r} from the secret: {said}",
    ),
    _Cause(
        r'no pg_hba.conf entry|is not permitted to log in|role ".*" does not exist',
        AuthenticationFailed,
        "{where} does not let user {user!r} in: {said}",
    ),
    _Cause(
        r'database ".*" does not exist',
        ConfigurationError,
        "there is no database {database!r} on {where}; correct the secret's dbname or DB_NAME",
    ),
    _Cause(
        r"does not support SSL",
        DatabaseUnavailable,
        "{where} offers no TLS and DB_SSLMODE is {sslmode}: turn TLS on at the server ({said})",
    ),
    _Cause(
        r"certificate verify failed|root certificate file|does not match host name|SSL error",
        DatabaseUnavailable,
        "{where} failed the TLS check of sslmode {sslmode}: {said} (is the host name the one in the certificate, and"
        " is the certificate signed by an authority in {ca}? See DB_HOST and DB_SSLROOTCERT)",
    ),
    _Cause(
        r"could not translate host name",
        DatabaseUnavailable,
        "the name {host!r} could not be resolved: {said} (check the secret's host or DB_HOST)",
        passing=True,
        no_route=True,
    ),
    _Cause(
        r"Connection refused",
        DatabaseUnavailable,
        "{where} refused the connection: is the server running, and is {port} its port? ({said})",
        passing=True,
    ),
)
_NO_ROUTE = _Cause(
    _SILENCE,
    DatabaseUnavailable,
    "{where} does not answer: {said} (the function must run in the database's VPC, and the database's security group"
    " must let the function's in on port {port})",
    passing=True,
    no_route=True,
)
_SLOW = _Cause(
    _SILENCE,
    DatabaseUnavailable,
    "{where} accepts connections but PostgreSQL does not answer on it: {said}",
    passing=True,
)
# Starting up, shutting down, too many connections: whatever the server says of itself may pass.
_OTHER = _Cause("", DatabaseUnavailable, "no connection to database {database!r} on {where}: {said}", passing=True)


def _cause(message: str, credentials: Credentials) -> _Cause:
    for cause in _CAUSES:
        if re.search(cause.words, message):
            return cause
    if re.search(_SILENCE, message):
        return _SLOW if _answers(credentials) else _NO_ROUTE
    return _OTHER


def _told(cause: _Cause, message: str, credentials: Credentials) -> str:
    return cause.told.format(
        where=f"{credentials.host}:{credentials.port}",
        said=one_line(message),
        host=credentials.host,
        port=credentials.port,
        user=credentials.user,
        database=credentials.database,
        sslmode=credentials.sslmode,
        ca=credentials.sslrootcert.name,
    )


def is_authentication_failure(message: str) -> bool:
    """Whether these words of libpq, asyncpg or the server say that the password is wrong."""
    return re.search(_WRONG_PASSWORD, message) is not None


def _answers(credentials: Credentials) -> bool:
    """Whether anything accepts a TCP connection there: a slow server is no missing route."""
    try:
        with socket.create_connection((credentials.host, credentials.port), timeout=2):
            return True
    except OSError:
        return False


def _session(connection: Connection, credentials: Credentials, schema: str | None) -> Session:
    try:
        return _checked_session(connection, credentials, schema)
    except BaseException:
        connection.close()
        raise


def _checked_session(connection: Connection, credentials: Credentials, schema: str | None) -> Session:
    connection.autocommit = True
    version = connection.server_version // 10000
    if version < OLDEST_SERVER:
        raise ConfigurationError(
            f"{credentials.host}:{credentials.port} is PostgreSQL {version}; {OLDEST_SERVER} or later is needed"
        )
    with connection.cursor() as cursor:
        cursor.execute(
            # One round trip. The first two lines release the lock when we are gone without a word.
            "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;"
            + (f"SET idle_session_timeout = '{IDLE_SESSION_TIMEOUT_S}s';" if version >= HAS_IDLE_TIMEOUT else "")
            + "SELECT pg_postmaster_start_time()::text, current_database(), pg_is_in_recovery(),"
            " current_setting('transaction_read_only') = 'on',"
            " %(schema)s::text IS NULL OR to_regnamespace(quote_ident(%(schema)s)) IS NOT NULL",
            {"schema": schema},
        )
        started, database, replica, read_only, schema_exists = cursor.fetchall()[0]
    if replica or read_only:
        what = "a read replica" if replica else "read-only"
        raise ConfigurationError(
            f"{credentials.host}:{credentials.port} is {what}: migrations need the writer; correct the secret's host"
        )
    if not schema_exists:
        raise InvalidRequest(f"there is no schema {schema!r} in database {database!r}; create it first")
    return Session(connection, Server(version, started, database), credentials)


@dataclass(frozen=True)
class Lock:
    """The migration lock, held. ``wait_ms`` is how long it took to get it."""

    wait_ms: int


@contextmanager
def migration_lock(session: Session, settings: Settings, deadline: Deadline, schema: str | None) -> Iterator[Lock]:
    """Hold the lock that lets one run at a time migrate a database and schema.

    It is a session-level advisory lock on a session that is never in a transaction, and it is polled for: a waiter
    inside `pg_advisory_lock` has a snapshot that CREATE INDEX CONCURRENTLY waits for, which is a deadlock.

    Raises:
        MigrationLocked: another run held it for too long; names its request id and since when.
    """
    key = (LOCK_CLASS, lock_key(schema))
    started = time.monotonic()
    patience = deadline.until(settings.migration_lock_timeout_s)
    next_log = started
    waited = False
    while not session.rows("SELECT pg_try_advisory_lock(%s, %s)", key)[0][0]:
        waited = True
        holder = lock_holder(session, schema)
        waited_ms = _ms_since(started)
        if patience.left() <= 0:
            raise MigrationLocked(
                f"another run holds the migration lock on database {session.server.database!r}: {holder}; waited"
                f" {waited_ms / 1000:.1f} s (wait for it to finish, then run again)"
            )
        if holder and time.monotonic() >= next_log:
            log(
                "lock.waiting",
                f"waiting for {holder} to release the migration lock",
                database=session.server.database,
                schema=schema,
                blocking_pids=[holder.pid],
                duration_ms=waited_ms,
            )
            next_log = time.monotonic() + _LOCK_WAITING_LOG_S
        time.sleep(min(_LOCK_POLL_S, max(0.01, patience.left())) * random.uniform(0.5, 1))  # noqa: S311 - no secret
    lock = Lock(_ms_since(started) if waited else 0)
    log("lock.acquired", "holding the migration lock", database=session.server.database, duration_ms=lock.wait_ms)
    try:
        yield lock
    finally:
        # A lost connection has released it already.
        if not session.connection.closed:
            session.rows("SELECT pg_advisory_unlock(%s, %s)", key)


def lock_key(schema: str | None) -> int:
    """The second half of the advisory lock's key, a signed 32-bit number; the database is part of it by itself."""
    return zlib.crc32(schema.encode()) - (1 << 31) if schema else 0


def lock_holder(session: Session, schema: str | None) -> Holder | None:
    """Who holds the migration lock now."""
    rows = session.rows(
        "SELECT a.pid, coalesce(a.application_name, ''), coalesce(a.backend_start::text, '?')"
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s AND l.objid = %s AND l.objsubid = 2"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (LOCK_CLASS, lock_key(schema) & 0xFFFFFFFF),
    )
    return Holder(*rows[0]) if rows else None


def blockers(session: Session, pids: list[int]) -> tuple[Holder, ...]:
    """The sessions that any of these backends is waiting for right now."""
    rows = session.rows(
        "SELECT pid, coalesce(application_name, ''), coalesce(xact_start::text, backend_start::text, '?')"
        " FROM pg_stat_activity"
        " WHERE pid IN (SELECT unnest(pg_blocking_pids(waiting)) FROM unnest(%s::int[]) AS waiting)",
        (pids,),
    )
    return tuple(Holder(*row) for row in rows)


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


def _pauses() -> Iterator[float]:
    """Seconds between attempts: growing, then steady, and never in step with another function's."""
    for pause in _PAUSES_S:
        yield pause * random.uniform(0.5, 1)  # noqa: S311 - jitter is no secret
    while True:
        yield _PAUSES_S[-1] * random.uniform(0.5, 1)  # noqa: S311


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
