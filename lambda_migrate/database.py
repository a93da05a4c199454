"""Reaching the server within a budget, what every session of ours sets, and the migration lock."""

from __future__ import annotations

import math
import random
import re
import select
import socket
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions

from lambda_migrate.contract import (
    AuthenticationFailed,
    ConfigurationError,
    DatabaseUnavailable,
    InvalidRequest,
    MigrationLocked,
    SecretUnavailable,
)
from lambda_migrate.deadline import Deadline, within
from lambda_migrate.telemetry import log, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_migrate.credentials import CredentialStore
    from lambda_migrate.login import Credentials
    from lambda_migrate.settings import Settings

Connection = psycopg2.extensions.connection

OLDEST_SERVER = 13
# The first versions with idle_session_timeout and with client_connection_check_interval.
HAS_IDLE_TIMEOUT = HAS_CONNECTION_CHECK = 14

# The first half of the key of every migration lock, "MIGR" in ASCII; the second half is the schema's checksum.
LOCK_CLASS = 0x4D494752
# The same, shared, held by env.py's own session: "MIGS". A run that was killed loses its lock at once, while its
# revision's session may be about to commit. Whoever gets the lock sees by this that there still is one, and ends it.
WORKER_LOCK_CLASS = 0x4D494753

# PostgreSQL's limit for application_name is NAMEDATALEN - 1.
_APPLICATION_NAME_BYTES = 63

# One attempt to connect; libpq counts whole seconds. A new instance of a paused Aurora takes longer and is tried again.
_ATTEMPT_S = 5
# A server that does not even answer on TCP is behind a missing route or rule: nobody should wait a minute to be told.
_NO_ROUTE_S = 12
# A password that was just rotated reaches the secret a moment after the server, or the other way round.
_ROTATION_S = 5
# While the roles of two servers change, the name may lead to the one that does not write yet, or no longer.
_FAILOVER_S = 10
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)
_LOCK_POLL_S = 0.5
_LOCK_WAITING_LOG_S = 10
_ORPHAN_POLL_S = 0.05
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
    for pause in _pauses():
        try:
            return _session(_connect(credentials, budget, deadline, name), credentials, deadline, schema)
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


def _connect(credentials: Credentials, budget: Deadline, deadline: Deadline, name: str) -> Connection:
    """Try until it works, until it cannot work, or until the budget is used up."""
    started = time.monotonic()
    connect: partial[Connection] = partial(
        psycopg2.connect,
        host=credentials.host,
        port=credentials.port,
        dbname=credentials.database,
        user=credentials.user,
        password=credentials.password,
        sslmode=credentials.sslmode,
        sslrootcert=str(credentials.sslrootcert),
        application_name=name,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
    )
    for attempt, pause in enumerate(_pauses(), start=1):
        # libpq counts it for each address of the name, and not while it resolves the name.
        timeout = max(2, min(_ATTEMPT_S, round(budget.left())))
        try:
            return within(deadline.patience(math.inf), partial(connect, connect_timeout=timeout))
        except psycopg2.OperationalError as error:
            message = str(error)
        except TimeoutError as late:
            raise DatabaseUnavailable(
                f"{credentials.host}:{credentials.port} does not answer: {late}, and Lambda's timeout is near"
            ) from None
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
    [(started, database, replica, read_only, schema_exists)] = _rows(
        connection,
        deadline,
        "".join(f"SET {name} = {value};" for name, value in settings.items())
        + "SELECT pg_postmaster_start_time()::text, current_database(), pg_is_in_recovery(),"
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
    return Session(connection, Server(version, started, database), credentials, deadline)


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
    held = False
    while True:
        held = held or session.rows("SELECT pg_try_advisory_lock(%s, %s)", key)[0][0]
        holder = _end_orphan(session, schema) if held else lock_holder(session, schema)
        if held and holder is None:
            break
        waited_ms = _ms_since(started)
        if patience.left() <= 0:
            raise MigrationLocked(
                f"another run holds the migration lock on database {session.server.database!r}:"
                f" {holder or 'one that has just ended'}; waited {waited_ms / 1000:.1f} s (wait for it to finish, then"
                " run again)",
                blocking_pids=[holder.pid] if holder else None,
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
        pause = _ORPHAN_POLL_S if held else _LOCK_POLL_S * random.uniform(0.5, 1)  # noqa: S311 - no secret
        time.sleep(min(pause, max(0.01, patience.left())))
    lock = Lock(_ms_since(started) if next_log > started else 0)
    log("lock.acquired", "holding the migration lock", database=session.server.database, duration_ms=lock.wait_ms)
    try:
        yield lock
    finally:
        # A lost connection has released it already; what the run has come to stands all the same.
        with suppress(DatabaseUnavailable):
            session.rows("SELECT pg_advisory_unlock(%s, %s)", key)


def _end_orphan(session: Session, schema: str | None) -> Holder | None:
    """End what a run that lost the lock has left working, and say which it is; None when there is none.

    Only the same login may end a session; another's ends by the server's own timeouts.
    """
    rows = session.rows(
        f"SET LOCAL ROLE NONE; SELECT *, CASE WHEN usename = session_user THEN pg_terminate_backend(pid) END"  # noqa: S608 - ours
        f" FROM ({_HOLDERS}) AS orphan",
        _lock_as_listed(WORKER_LOCK_CLASS, schema),
    )
    return Holder(*rows[0][:3]) if rows else None


def lock_key(schema: str | None) -> int:
    """The second half of the advisory lock's key, a signed 32-bit number; the database is part of it by itself."""
    return zlib.crc32(schema.encode()) - (1 << 31) if schema else 0


def lock_holder(session: Session, schema: str | None) -> Holder | None:
    """Who holds the migration lock now."""
    rows = session.rows(_HOLDERS, _lock_as_listed(LOCK_CLASS, schema))
    return Holder(*rows[0][:3]) if rows else None


_HOLDERS = (
    "SELECT a.pid, coalesce(a.application_name, '') AS name, coalesce(a.backend_start::text, '?') AS since, a.usename"
    " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s AND l.objid = %s AND l.objsubid = 2"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def _lock_as_listed(lock_class: int, schema: str | None) -> tuple[int, int]:
    """A lock's key as pg_locks shows it: unsigned."""
    return lock_class, lock_key(schema) & 0xFFFFFFFF


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
