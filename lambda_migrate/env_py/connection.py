"""Checks and configures the connection that env.py hands to Alembic, and makes sessions read-only."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event

from lambda_migrate.database.migration_lock import LOCK_CLASS, WORKER_LOCK_CLASS
from lambda_migrate.database.session import (
    CONNECTION_CHECK_MS,
    HAS_CONNECTION_CHECK,
    HAS_IDLE_TIMEOUT,
    IDLE_IN_TRANSACTION_TIMEOUT_S,
)
from lambda_migrate.env_py import steps
from lambda_migrate.invocation.errors import PoolerRefused, TargetMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_migrate.env_py.messages import Job

# Sessions of these actions cannot write, whatever env.py or a revision does.
READ_ONLY_ACTIONS = frozenset({"status", "plan", "check"})

_OTHER_POOLER = (
    "env.py connected through a pooler that the function's own session does not go through: let both use the same"
    " address; nothing was set or run"
)
_PREPARATIONS = re.compile(r"\bCREATE\s+(SCHEMA|EXTENSION|TABLE)\s+IF\s+NOT\s+EXISTS\b[^;]*", re.IGNORECASE)


def make_sessions_read_only(*, pooled: bool) -> None:
    """Make each session read-only that env.py, a revision or the application opens through SQLAlchemy.

    ``pooled`` says that the function's own session goes through a pooler in session mode.
    """

    def make_read_only(connection: sqlalchemy.Connection) -> None:
        if connection.dialect.name != "postgresql":
            return
        own_pid = None if pooled else driver_pid(connection)
        condition = "" if own_pid is None else f" WHERE pg_backend_pid() = {own_pid}"
        done = connection.exec_driver_sql(
            f"SELECT set_config('default_transaction_read_only', 'on', false){condition}"
        ).all()
        connection.commit()
        if not done:
            raise PoolerRefused(_OTHER_POOLER)

    event.listen(sqlalchemy.Engine, "engine_connect", make_read_only)
    event.listen(sqlalchemy.Engine, "before_cursor_execute", _without_preparations, retval=True)


def _without_preparations(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:  # noqa: ANN401
    """Return the statement with SELECT 1 in place of CREATE ... IF NOT EXISTS.

    Many env.py files begin with one, and a read-only session rejects it even if it would change nothing.
    """
    return _PREPARATIONS.sub("SELECT 1", statement), parameters


def set_search_path_of_sessions(schema: str) -> None:
    """Set the search_path of each session that env.py, a revision or the application opens through SQLAlchemy."""

    def set_path(connection: sqlalchemy.Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT {_search_path(schema)}")
            connection.commit()

    event.listen(sqlalchemy.Engine, "engine_connect", set_path)


def prepare(connection: sqlalchemy.Connection, job: Job) -> int:
    """Check the server and database of env.py's connection, and set its session's parameters, in one round trip.

    Returns:
        The process id of its backend.

    Raises:
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
            f"env.py connected to {connection.dialect.name}, but the secret names {expected}; no revision was run"
            f" {advice}"
        )
    if job.schema is not None:
        # Alembic's comparisons treat this schema as "no schema".
        connection.dialect.default_schema_name = job.schema
    if job.pooled and not _has_address(connection, job):
        raise PoolerRefused(f"{_OTHER_POOLER} {advice}")
    own_pid = None if job.pooled else driver_pid(connection)
    # Set nothing on the session of a pool: other clients use it, too.
    direct = "true" if own_pid is None else f"pg_backend_pid() = {own_pid}"
    values = ", ".join((*_settings(job), "true" if job.action in READ_ONLY_ACTIONS else _takes_worker_lock(job)))
    # This transaction ends before Alembic looks for one. One that env.py began is left to env.py.
    with connection.begin() if not connection.in_transaction() else contextlib.nullcontext():
        pid, started, database, is_direct, still_locked = connection.exec_driver_sql(
            "SELECT pg_backend_pid(), pg_postmaster_start_time()::text, current_database(),"  # noqa: S608 - ours
            f" {direct}, CASE WHEN {direct} THEN (SELECT locked FROM (SELECT {values} AS locked) AS set_up) END"
        ).one()
    if (started, database) != (server.started, server.database):
        which = "the same" if started == server.started else "another"
        raise TargetMismatch(
            f"env.py connected to database {database!r} on {which} server, but the secret names {expected}; no revision"
            f" was run {advice}"
        )
    if not is_direct:
        raise PoolerRefused(f"{_OTHER_POOLER} {advice}")
    if not still_locked:
        raise ConnectionError("the session that holds the migration lock was lost before env.py had connected")
    return int(pid)


def _has_address(connection: sqlalchemy.Connection, job: Job) -> bool:
    """Return whether env.py connected to the secret's address, as far as its engine has one."""
    url, own = connection.engine.url, job.credentials
    pairs = ((url.host, own.host), (url.port, own.port), (url.database, own.database))
    return all(theirs is None or theirs == ours for theirs, ours in pairs)


def driver_pid(connection: sqlalchemy.Connection) -> int | None:
    """Return the backend's pid that the driver got at connect time, or None for a driver that does not keep it."""
    dbapi: Any = connection.connection.dbapi_connection
    info = getattr(dbapi, "info", None)  # psycopg2, psycopg
    if info is not None and hasattr(info, "backend_pid"):
        return int(info.backend_pid)
    asyncpg: Any = getattr(dbapi, "driver_connection", None)
    return int(asyncpg.get_server_pid()) if hasattr(asyncpg, "get_server_pid") else None


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
        _set_unless_env_py_did(settings, statement_timeout_ms=steps.statement_timeout_ms(job)),
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


def _search_path(schema: str) -> str:
    return f"set_config('search_path', quote_ident({_literal(schema)}), false)"


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
    return f"set_config('{name}', {_literal(value)}, false)"


def _literal(text: str) -> str:
    """Return a text as an SQL literal, because drivers' placeholders differ. "%" is escaped: it may begin one."""
    quoted = text.replace("'", "''")
    return f"E'{quoted}'".replace("\\", "\\\\").replace("%", "\\045")


def _set_unless_env_py_did(settings: Mapping[str, str], *, statement_timeout_ms: int) -> str:
    """Return SQL that sets the timeouts but keeps those that env.py set before configure() or at connect time.

    A statement timeout of env.py's own is kept only if it is shorter. It is one query, because the server computes the
    whole of pg_settings each time. It is MATERIALIZED, because only these settings are numbers.
    """
    names = ", ".join(f"'{name}'" for name in (*settings, "statement_timeout"))
    values = ", ".join(f"('{name}', {_literal(value)}, NULL::int)" for name, value in settings.items())
    return (
        "(WITH now AS MATERIALIZED (SELECT name, setting::int, source IN ('session', 'client') AS meant"  # noqa: S608 - ours
        f" FROM pg_settings WHERE name IN ({names}))"
        " SELECT count(set_config(name, value, false)) FROM now"
        f" JOIN (VALUES {values}, ('statement_timeout', '{statement_timeout_ms}', {statement_timeout_ms}))"
        " AS ours (name, value, longest) USING (name)"
        " WHERE NOT meant OR longest IS NOT NULL AND setting NOT BETWEEN 1 AND longest)"
    )
