"""Opens the function's own session: credentials, rotation, failover, and the limit of runs on one server."""

from __future__ import annotations

import json
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from lambda_migrate.database.common import HAS_IDLE_TIMEOUT, STARTED, Server
from lambda_migrate.database.connect import connect, pauses
from lambda_migrate.database.credential_store import STORE
from lambda_migrate.database.pooler import check_pinned
from lambda_migrate.database.qualified import SEARCH_PATH, qualified
from lambda_migrate.database.server_limit import leave_if_busy
from lambda_migrate.database.session import ANSWER_S, IDLE_SESSION_TIMEOUT_S, Session, rows_of
from lambda_migrate.database.version_table import OWN_VERSION_TABLE, PLACE_IN_PATH, PLACE_IN_SCHEMA
from lambda_migrate.invocation.deadline import within
from lambda_migrate.invocation.errors import (
    AuthenticationFailed,
    ConfigurationError,
    DatabaseUnavailable,
    InvalidRequest,
    SecretUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lambda_migrate.database.credentials import Credentials
    from lambda_migrate.database.session import Connection
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.settings import Settings

_OLDEST_SERVER = 13
# With these the server releases the lock if the function vanishes, and cancels a statement for which the function no
# longer waits.
_SETTINGS: Mapping[str, str] = {
    "search_path": SEARCH_PATH,
    # No session of the function's own writes.
    "default_transaction_read_only": "on",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": str(IDLE_SESSION_TIMEOUT_S * 1000),
    "statement_timeout": str(ANSWER_S * 1000),
}
_SETTINGS_IDLE: Mapping[str, str] = {"idle_session_timeout": str(IDLE_SESSION_TIMEOUT_S * 1000)}
# A rotated password reaches the secret a moment after the server, or the other way round.
_ROTATION_S = 5
# During a failover, the host name may resolve to the server that no longer writes, or does not write yet.
_FAILOVER_S = 10
# Longer than one lookup of a secret can take: two attempts of 3 s to connect and 5 s to read (see `invocation.aws`).
_SECRET_S = 20


def open_session(invocation: Invocation, version_table: str | None = None) -> Session:
    """Return a session with the target's credentials, reading the secret again if the server refuses them.

    ``version_table`` is the name of the table to find for `Session.version_table`.

    The budget ends after CONNECT_TIMEOUT_S, or at the deadline if that is nearer.

    Raises:
        AuthenticationFailed: the server refuses the credentials, also after the secret was read again.
        DatabaseUnavailable: no connection within the budget. The message names the cause: host name, route, port, TLS
            or server.
        ConfigurationError: the database does not exist, is on a replica, or is too old.
        InvalidRequest: the database has no such schema.
        PoolerRefused: a pooler in transaction mode is in the way.
        ServerBusy: this is a target of a rollout, and as many runs as allowed are active on its server.
    """
    wanted = _Wanted(invocation.name, invocation.schema, version_table)
    session = _open(invocation.settings, invocation.deadline, wanted)
    limit = invocation.settings.server_concurrency
    if limit is not None and invocation.request.is_target_of_rollout:
        try:
            leave_if_busy(session, invocation.name, limit)
        except BaseException:
            session.close()
            raise
    return session


class _Wanted(NamedTuple):
    """The name of the session, the schema of the request, and the table to find."""

    name: str
    schema: str | None
    version_table: str | None


def _open(settings: Settings, deadline: Deadline, wanted: _Wanted) -> Session:
    budget = deadline.until(settings.connect_timeout_s)
    credentials = _in_time(deadline, lambda: STORE.get(settings))
    rotation: Deadline | None = None
    failover: Deadline | None = None
    for pause in pauses():
        try:
            # The function opens the second connection only if there is a pooler.
            again = partial(connect, credentials, budget, deadline, wanted.name)
            return _session(again(), credentials, deadline, wanted, again)
        except AuthenticationFailed:
            fresh = _in_time(deadline, lambda: STORE.refresh(settings))
            if not _differ(fresh, credentials, settings):
                # The server may have the new password already, and the secret has it a moment later.
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
    """The server is a replica: the host is wrong, or a failover has not promoted it yet."""


def is_rotated(invocation: Invocation, used: Credentials) -> bool:
    """Return whether the secret, which is read again, holds another login than the one used."""
    fresh = _in_time(invocation.deadline, lambda: STORE.refresh(invocation.settings))
    return _differ(fresh, used, invocation.settings)


def _differ(fresh: Credentials, used: Credentials, settings: Settings) -> bool:
    # Each IAM token differs, so only the user counts.
    return fresh != used and (settings.auth != "iam" or fresh.user != used.user)


def _in_time(deadline: Deadline, read: Callable[[], Credentials]) -> Credentials:
    try:
        return within(deadline.patience(_SECRET_S), read)
    except TimeoutError as late:
        raise SecretUnavailable(f"the secret could not be read before the run's deadline: {late}") from None


def _session(
    connection: Connection,
    credentials: Credentials,
    deadline: Deadline,
    wanted: _Wanted,
    second: Callable[[], Connection],
) -> Session:
    try:
        connection.autocommit = True
        version = _checked_version(connection, credentials)
        settings = {**_SETTINGS, **(_SETTINGS_IDLE if version >= HAS_IDLE_TIMEOUT else {})}
        facts = _set_up(connection, deadline, settings, wanted, pid=connection.info.backend_pid)
        pooled = facts.pid != connection.info.backend_pid
        if pooled:
            with closing(second()) as other:
                other.autocommit = True
                pid = check_pinned(connection, other, wanted.name, deadline)
            facts = _set_up(connection, deadline, settings, wanted, pid=pid)
        _check(facts, credentials, wanted.schema)
    except BaseException:
        connection.close()
        raise
    server = Server(version, facts.started, facts.database)
    path = tuple(json.loads(facts.path))
    return Session(
        connection,
        facts.pid,
        server,
        credentials,
        deadline,
        path=path,
        path_is_whole=len(path) >= facts.path_names,
        version_table=facts.version_table,
        # Behind a pooler, the server knows the pooler's connection only.
        encrypted=bool(connection.info.ssl_in_use) and not pooled,
        pooled=pooled,
    )


def _checked_version(connection: Connection, credentials: Credentials) -> int:
    version = connection.server_version // 10000
    if version < _OLDEST_SERVER:
        raise ConfigurationError(
            f"{credentials.host}:{credentials.port} is PostgreSQL {version}; {_OLDEST_SERVER} or later is needed"
        )
    return version


class _Facts(NamedTuple):
    pid: int
    started: str
    database: str
    replica: bool
    schema_exists: bool
    path: str
    path_names: int
    version_table: str | None
    is_set_up: bool


def _set_up(
    connection: Connection, deadline: Deadline, settings: Mapping[str, str], wanted: _Wanted, *, pid: int
) -> _Facts:
    """Return facts about the server and database, and set the session's parameters, in one round trip.

    The statement is qualified. After it, the session resolves names in pg_catalog alone. The parameters are set only if
    ``pid`` is that of the server session. Otherwise a pooler is in between, and they might reach another client's
    session.
    """
    values = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items())
    facts_sql = _FACTS.format(place=_IN_PATH if wanted.schema is None else PLACE_IN_SCHEMA)
    [facts] = rows_of(
        connection,
        deadline,
        qualified(
            f"{facts_sql}, CASE WHEN pg_backend_pid() = %(pid)s"  # noqa: S608 - ours
            f" THEN (SELECT count(*) > 0 FROM (SELECT {values}) AS made) ELSE false END"
        ),
        {"schema": wanted.schema, "table": wanted.version_table, "pid": pid},
    )
    return _Facts(*facts)


_IN_PATH = PLACE_IN_PATH.format(path="current_schemas(false)")
_FACTS = f"""
    SELECT pg_backend_pid(), {STARTED}, current_database(), pg_is_in_recovery(),
        %(schema)s::text IS NULL OR to_regnamespace(quote_ident(%(schema)s::text)) IS NOT NULL,
        array_to_json(current_schemas(false))::text,
        array_length(string_to_array(current_setting('search_path'), ','), 1),
        ({OWN_VERSION_TABLE})"""


def _check(facts: _Facts, credentials: Credentials, schema: str | None) -> None:
    if not facts.is_set_up:
        raise DatabaseUnavailable("the pooler gave this connection another server session; invoke again")
    if facts.replica:
        raise _StillReplica(
            f"{credentials.host}:{credentials.port} is a read replica: migrations need the writer; correct the secret's"
            " host"
        )
    if not facts.schema_exists:
        raise InvalidRequest(f"there is no schema {schema!r} in database {facts.database!r}; create it first")
