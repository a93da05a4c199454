"""Checks and configures the connection that env.py hands to Alembic, and makes sessions read-only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event

from lambda_migrate.database import untrusted
from lambda_migrate.database.common import (
    CONNECTION_CHECK_MS,
    HAS_CONNECTION_CHECK,
    HAS_IDLE_TIMEOUT,
    IDLE_IN_TRANSACTION_TIMEOUT_S,
    LOCK_CLASS,
    STARTED,
    WORKER_LOCK_CLASS,
)
from lambda_migrate.database.qualified import literal, qualified
from lambda_migrate.env_py.driver_state import pid_at_connect
from lambda_migrate.env_py.messages import READ_ONLY_ACTIONS
from lambda_migrate.env_py.transactions import row_between, rows_between
from lambda_migrate.invocation.errors import ConfigurationError, PoolerRefused, TargetMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_migrate.env_py.messages import Job

# statement_timeout is this share of the time left. It is lowered again only when the other 2 % of the time have passed,
# not before each revision. The supervisor cancels a statement that still runs when time is up.
STATEMENT_SHARE = 0.98

OTHER_POOLER = (
    "env.py connected through a pooler that the function's own session does not go through: let both use the same"
    " address; nothing was set or run"
)


def set_search_path_of_sessions(schema: str) -> None:
    """Set the search_path of each session that env.py, a revision or the application opens through SQLAlchemy."""

    def set_path(connection: sqlalchemy.Connection, *_: object) -> None:
        if connection.dialect.name == "postgresql":
            row_between(connection, qualified(f"SELECT {_search_path(schema)}"))

    event.listen(sqlalchemy.engine.Engine, "engine_connect", set_path)


@dataclass(frozen=True)
class Prepared:
    """A prepared session: the process id of its backend, and a warning about its search_path, if there is one."""

    pid: int
    warning: str | None


def prepare(connection: sqlalchemy.Connection, job: Job) -> Prepared:
    """Check the server and database of env.py's connection, and set its session's parameters, in one round trip.

    Raises:
        ConfigurationError: another role could run code in this session, and UNTRUSTED_SCHEMA says to refuse it; or
            the session is not encrypted, and the function's own is.
        TargetMismatch: they are not the server and database of the secret.
        PoolerRefused: the connection goes through a pooler that the function's own session does not go through.
        ConnectionError: the session that holds the migration lock was lost.
    """
    server = job.server
    assert server is not None  # noqa: S101 - a job that runs env.py has one
    expected = f"database {server.database!r} on {job.credentials.host}:{job.credentials.port}"
    advice = f"(does it read {' or '.join(job.settings.url_variables)}? See DATABASE_URL_ENV and DATABASE_ENV)"
    if connection.dialect.name != "postgresql":
        raise TargetMismatch(
            f"env.py connected to {connection.dialect.name}, but the secret names {expected}; no revision was run there"
            f" {advice}"
        )
    if job.schema is not None:
        # Alembic's comparisons treat this schema as "no schema".
        connection.dialect.default_schema_name = job.schema
    if job.pooled and not _has_address(connection, job):
        raise PoolerRefused(f"{OTHER_POOLER} {advice}")
    own_pid = None if job.pooled else driver_pid(connection)
    # Set nothing on the session of a pool: other clients use it, too.
    direct = "true" if own_pid is None else f"pg_backend_pid() = {own_pid}"
    values = ", ".join((*_settings(job), "true" if job.action in READ_ONLY_ACTIONS else _takes_worker_lock(job)))
    row = row_between(
        connection,
        qualified(
            f"SELECT pg_backend_pid(), {STARTED}, current_database(),"  # noqa: S608 - ours
            " array_to_json(current_schemas(false))::text,"
            # The value of pg_stat_ssl, which computes it for every session.
            " (SELECT ssl FROM pg_stat_get_activity(pg_backend_pid())),"
            f" {direct}, CASE WHEN {direct} THEN (SELECT locked FROM (SELECT {values} AS locked) AS set_up) END"
        ),
    )
    assert row is not None  # noqa: S101 - this query always has one
    pid, started, database, path, encrypted, is_direct, still_locked = row
    if (started, database) != (server.started, server.database):
        which = "the same" if started == server.started else "another"
        raise TargetMismatch(
            f"env.py connected to database {database!r} on {which} server, but the secret names {expected}; no revision"
            f" was run there {advice}"
        )
    if not is_direct:
        raise PoolerRefused(f"{OTHER_POOLER} {advice}")
    if encrypted is None:
        # The session acts as a role that may not see its login's sessions.
        info: Any = getattr(connection.connection.dbapi_connection, "info", None)
        encrypted = getattr(info, "ssl_in_use", None)
    if job.encrypted and encrypted is False:
        raise ConfigurationError(
            f"env.py's session is not encrypted, and DB_SSLMODE is {job.credentials.sslmode}: let it connect through"
            " SQLAlchemy, with PGSSLMODE and PGSSLROOTCERT; its password may have been seen on the way"
        )
    if not still_locked:
        raise ConnectionError("the session that holds the migration lock was lost before env.py had connected")
    return Prepared(int(pid), _check_trusted(connection, job, json.loads(path)))


def _check_trusted(connection: sqlalchemy.Connection, job: Job, path: Sequence[str]) -> str | None:
    """Check the schemas that env.py itself has put into the search_path, and return a warning, if any.

    Raises:
        ConfigurationError: as `untrusted.refuse`.
    """
    unchecked = sorted({*path} - {*job.checked_schemas})
    if not unchecked or job.settings.untrusted_schema == "ignore":
        return None
    found = untrusted.findings(rows_between(connection, qualified(untrusted.query(unchecked, missing=False))))
    return str(found) if untrusted.refuse(found, job.settings) else None


def _has_address(connection: sqlalchemy.Connection, job: Job) -> bool:
    """Return whether env.py connected to the secret's address, as far as its engine has one."""
    url, own = connection.engine.url, job.credentials
    pairs = ((url.host, own.host), (url.port, own.port), (url.database, own.database))
    return all(theirs is None or theirs == ours for theirs, ours in pairs)


def driver_pid(connection: sqlalchemy.Connection) -> int | None:
    """Return the backend's pid that the driver got at connect time, or None for a driver that does not keep it."""
    return pid_at_connect(connection.connection.dbapi_connection)


def _settings(job: Job) -> list[str]:
    """Return SQL for each value to set in env.py's session."""
    assert job.server is not None  # noqa: S101 - as in `prepare`
    settings = {
        "lock_timeout": f"{job.settings.lock_timeout_ms}ms",
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s",
    }
    if job.server.version >= HAS_IDLE_TIMEOUT:
        settings["idle_session_timeout"] = f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s"
    values = [
        _set("application_name", job.application_name),
        _set_unless_env_py_did(settings, statement_timeout_ms=statement_timeout_ms(job)),
        _set("tcp_keepalives_idle", "10"),
        _set("tcp_keepalives_interval", "5"),
        _set("tcp_keepalives_count", "3"),
        _set("tcp_user_timeout", f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s"),
    ]
    if job.server.version >= HAS_CONNECTION_CHECK:
        values.append(_set("client_connection_check_interval", str(CONNECTION_CHECK_MS)))
    if job.schema is not None:
        values.append(_search_path(job.schema))
    return values


def statement_timeout_ms(job: Job) -> int:
    """Return the longest time that one statement may take from now on."""
    left = max(1, int(job.deadline.left() * 1000 * STATEMENT_SHARE))
    return min(job.settings.statement_timeout_ms or left, left)


def lower_statement_timeout(connection: sqlalchemy.Connection, to_ms: int) -> None:
    """Lower the statement timeout. Keep a shorter one, which env.py set."""
    connection.exec_driver_sql(
        qualified(
            f"SELECT set_config(name, '{to_ms}', false) FROM pg_settings"  # noqa: S608 - a number
            f" WHERE name = 'statement_timeout' AND (setting::int < 1 OR setting::int > {to_ms})"
        )
    )


def _search_path(schema: str) -> str:
    return f"set_config('search_path', quote_ident({literal(schema)}), false)"


def _takes_worker_lock(job: Job) -> str:
    """Return SQL that takes the worker lock and is true if the run's own session still holds the migration lock.

    The order matters. The next run takes the migration lock first and looks for worker locks then. So either that run
    finds this session, or this session finds that the migration lock was lost.
    """
    taken = " AND ".join(f"pg_try_advisory_lock_shared({WORKER_LOCK_CLASS}, {key})" for key in job.lock_keys)
    return (
        f"CASE WHEN {taken} THEN EXISTS ("
        "SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted"
        f" AND classid = {LOCK_CLASS} AND objid = {job.lock_keys[0] & 0xFFFFFFFF} AND objsubid = 2"
        f" AND pid = {job.lock_pid}) END"
    )


def _set(name: str, value: str) -> str:
    return f"set_config('{name}', {literal(value)}, false)"


def _set_unless_env_py_did(settings: Mapping[str, str], *, statement_timeout_ms: int) -> str:
    """Return SQL that sets the timeouts but keeps those that env.py set before configure() or at connect time.

    A statement timeout of env.py is kept only if it is shorter. This is one query, because the server computes all of
    pg_settings for each query. MATERIALIZED makes the filter run before the cast, because only these are numbers.
    """
    names = " OR ".join(f"name = '{name}'" for name in (*settings, "statement_timeout"))
    values = ", ".join(f"('{name}', {literal(value)}, NULL::int)" for name, value in settings.items())
    return (
        "(WITH now AS MATERIALIZED (SELECT name, setting::int,"  # noqa: S608 - ours
        " source = 'session' OR source = 'client' AS meant"
        f" FROM pg_settings WHERE {names})"
        " SELECT count(set_config(now.name, value, false)) FROM now"
        f" JOIN (VALUES {values}, ('statement_timeout', '{statement_timeout_ms}', {statement_timeout_ms}))"
        " AS ours (name, value, longest) ON ours.name = now.name"
        " WHERE NOT meant OR longest IS NOT NULL AND (setting < 1 OR setting > longest))"
    )
