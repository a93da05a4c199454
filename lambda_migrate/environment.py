"""Runs the backend's env.py unmodified, on our terms. Everything here happens in a process of its own.

That process is forked for each run and ends with it: what env.py and the application's modules cache, patch, log, or
leave open never meets a later run, which may have another target or a rotated password. It talks to its supervisor in
`messages` only.

env.py receives its address by every way that the contract's section 3 names. `EnvironmentContext.configure` is wrapped
on the instance, the one place through which every env.py passes with its connection: there we check where it leads and
set what our sessions need. Alembic must not find a transaction there that env.py did not begin: it would take it for
env.py's own and commit nothing. So what we begin is ended before Alembic looks.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import sqlalchemy
from alembic.config import CommandLine
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import event

from lambda_migrate import steps, tree
from lambda_migrate.capture import output_as_messages, sent_one_by_one
from lambda_migrate.contract import ConfigurationError, TargetMismatch
from lambda_migrate.database import (
    CONNECTION_CHECK_MS,
    HAS_CONNECTION_CHECK,
    HAS_IDLE_TIMEOUT,
    IDLE_IN_TRANSACTION_TIMEOUT_S,
    LOCK_CLASS,
    WORKER_LOCK_CLASS,
    lock_key,
)
from lambda_migrate.failures import failure_of
from lambda_migrate.messages import Connected, Ended, Job, Message
from lambda_migrate.statements import Journal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from lambda_migrate.credentials import Credentials

_CONNECT_TIMEOUT_S = 10

# The actions that only look: their sessions cannot write, whatever env.py or a revision does.
_READ_ONLY = frozenset({"status", "plan", "check"})
_WRITING = frozenset({"upgrade", "downgrade", "stamp"})
_PREPARATIONS = re.compile(r"\bCREATE\s+(SCHEMA|EXTENSION|TABLE)\s+IF\s+NOT\s+EXISTS\b[^;]*", re.IGNORECASE)


def run(job: Job, send: Callable[[Message], None]) -> None:
    """Run env.py and report. Whatever happens, the last message is `Ended`, unless the process itself dies."""
    send = sent_one_by_one(send)
    journal = Journal(send)
    try:
        with output_as_messages(send):
            _run(job, journal)
        ended = Ended(stopped=journal.stopped, heads=journal.heads if job.action in _WRITING else None)
    except BaseException as error:  # noqa: BLE001 - sys.exit, KeyboardInterrupt and running out of memory included
        ended = Ended(
            failure_of(error, journal.revision, began=journal.began, partly_committed=journal.partly_committed)
        )
    send(ended)


def _run(job: Job, journal: Journal) -> None:
    path = job.settings.alembic_config
    _set_environment(job)
    if not path.parent.is_dir():
        raise ConfigurationError(f"the package has no folder {path.parent.name}")
    # Relative paths in the config file and in env.py are meant from the folder that the alembic command runs in.
    os.chdir(path.parent)
    sys.path.insert(0, str(path.parent))
    config = tree.read_config(path)
    _set_url(config, job.credentials, job.settings.driver)
    _accept_percent_signs(config)
    config.attributes = _Attributes(lambda: _own_engine(job.credentials, job.settings.driver))
    config.cmd_opts = _command_line(job)
    if job.action in _READ_ONLY:
        event.listen(sqlalchemy.Engine, "engine_connect", _make_read_only)
        event.listen(sqlalchemy.Engine, "before_cursor_execute", _without_preparations, retval=True)
    script = tree.load(config)
    if job.action == "history":
        for told in steps.history(script):
            journal.send(told)
        return
    wanted = steps.Steps(job, config, script, journal)
    # Where it is has to be known before a plan can be rendered.
    action = "status" if job.action == "plan" else job.action
    with EnvironmentContext(
        config, script, fn=getattr(wanted, action), destination_rev=job.revision, dont_mutate=action in _READ_ONLY
    ) as environment:
        _wrap_configure(environment, job, journal)
        script.run_env()
    if not journal.began:
        raise ConfigurationError("env.py came to its end without calling context.run_migrations()")
    if job.action == "plan" and not journal.ahead:
        _render_plan(job, config, script, journal)


def _render_plan(job: Job, config: Config, script: ScriptDirectory, journal: Journal) -> None:
    """Run env.py once more, in Alembic's offline mode; whatever goes wrong there is said of the revisions left."""
    config.cmd_opts = _command_line(job, "--sql")
    # A revision may connect past SQLAlchemy too. Only here: not every proxy before a server takes options.
    os.environ["PGOPTIONS"] = f"{os.environ.get('PGOPTIONS', '')} -c default_transaction_read_only=on".strip()
    config.output_buffer = buffer = io.StringIO()
    rendering = steps.Rendering(job, script, journal, buffer, journal.heads)
    with EnvironmentContext(
        config,
        script,
        fn=rendering.plan,
        as_sql=True,
        starting_rev=journal.heads or None,
        destination_rev=job.revision,
    ) as environment:
        _wrap_configure(environment, job, journal)
        try:
            script.run_env()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an env.py without an offline mode may raise anything
            rendering.tell_the_rest(error)


def _set_environment(job: Job) -> None:
    """Everything by which an env.py may learn its address and TLS settings."""
    credentials, settings = job.credentials, job.settings
    placeholders = credentials.placeholders(settings.driver)
    os.environ.update(dict.fromkeys(settings.url_variables, credentials.url(settings.driver)))
    os.environ.update({name: _filled(text, placeholders) for name, text in settings.env_variables.items()})
    if job.schema is not None:
        # For connections that the backend makes beside env.py's; a backslash escapes what libpq would split.
        path = re.sub(r"([\\ ])", r"\\\1", '"' + job.schema.replace('"', '""') + '"')
        os.environ["PGOPTIONS"] = f"-c search_path={path}"
    # libpq's own variables, which asyncpg reads too, so that TLS holds for every driver.
    os.environ.update(
        PGSSLMODE=credentials.sslmode,
        PGSSLROOTCERT=str(credentials.sslrootcert),
        PGCONNECT_TIMEOUT=str(_CONNECT_TIMEOUT_S),
        PGAPPNAME=job.application_name,
    )


def _filled(text: str, placeholders: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: placeholders[found[1]], text)


def _set_url(config: Config, credentials: Credentials, driver: str) -> None:
    """Set sqlalchemy.url only where the config file has it: elsewhere an env.py may prefer it to its own variable."""
    section, key = config.config_ini_section, "sqlalchemy.url"
    if not config.file_config.has_option(section, key):
        return
    own_driver = re.match(r"postgresql\+\w+(?=://)", config.file_config.get(section, key, raw=True))
    address = credentials.url(own_driver[0] if own_driver else driver)
    config.set_main_option(key, address.replace("%", "%%"))


def _accept_percent_signs(config: Config) -> None:
    """Let an env.py set sqlalchemy.url itself, though it forgets that a percent sign has a meaning in a config file.

    It works with a password without one, so nobody notices until a generated password holds a character that must be
    escaped in a URL.
    """
    original = config.set_section_option

    def set_section_option(section: str, name: str, value: str) -> None:
        try:
            original(section, name, value)
        except ValueError:
            original(section, name, value.replace("%", "%%"))

    config.set_section_option = set_section_option  # type: ignore[method-assign]


def _command_line(job: Job, *options: str) -> argparse.Namespace:
    """What env.py finds in ``config.cmd_opts`` when the alembic command runs it."""
    arguments = {"upgrade": [job.revision], "plan": [job.revision], "downgrade": ["base"], "stamp": [job.revision]}
    command = {"plan": "upgrade", "status": "current"}.get(job.action, job.action)
    parser = CommandLine().parser
    found = parser.parse_args(
        ["-c", job.settings.alembic_config.name, command, *arguments.get(job.action, ()), *options]
    )
    found.revision = job.revision
    # Asked for by the recipe of Alembic's cookbook, which its own `check` command fails on.
    found.autogenerate = job.action == "check"
    return found


def _make_read_only(connection: sqlalchemy.Connection) -> None:
    """Make a session that env.py, a revision or the application opens unable to write."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET default_transaction_read_only = on")
        connection.commit()


def _without_preparations(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:  # noqa: ANN401
    """Leave out what many an env.py does first: a session that cannot write refuses it, also where it has no effect."""
    return _PREPARATIONS.sub("SELECT 1", statement), parameters


class _Attributes(dict[str, Any]):
    """`Config.attributes` that makes a connection only for an env.py that asks for one."""

    def __init__(self, make_engine: Callable[[], sqlalchemy.Engine]) -> None:
        super().__init__()
        self._make_engine = make_engine

    def __missing__(self, key: str) -> Any:  # noqa: ANN401
        if key != "connection":
            raise KeyError(key)
        connection = self._make_engine().connect()
        # Some expect an engine here, as pytest-alembic hands over, and connect.
        connection.connect = lambda: contextlib.nullcontext(connection)  # type: ignore[attr-defined]
        self[key] = connection
        return connection

    def __contains__(self, key: object) -> bool:
        return key == "connection" or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        return self[key] if key in self else default  # noqa: SIM401 - that would call this method

    def pop(self, key: str, *default: Any) -> Any:  # noqa: ANN401
        if key in self:
            self[key]  # made, if it was not
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        return self[key] if key in self else super().setdefault(key, default)


def _own_engine(credentials: Credentials, driver: str) -> sqlalchemy.Engine:
    # A connection that is handed over is used without asyncio.
    url = sqlalchemy.make_url(credentials.url(driver))
    if url.get_dialect().is_async:
        url = url.set(drivername="postgresql+psycopg2")
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)


def _wrap_configure(environment: EnvironmentContext, job: Job, journal: Journal) -> None:
    # On the instance: Alembic binds its `context` proxy to the exact class, so that a subclass is not seen.
    original = environment.configure

    def configure(connection: sqlalchemy.Connection | None = None, *args: Any, **options: Any) -> None:  # noqa: ANN401
        if options.get("upgrade_token", "upgrades") != "upgrades":
            raise ConfigurationError("env.py is of Alembic's multidb template: one function migrates one database")
        if connection is None and not environment.is_offline_mode():
            raise ConfigurationError("env.py gave context.configure() no connection, though it does not run offline")
        # Of anything else Alembic says itself what it is.
        if isinstance(connection, sqlalchemy.Connection):
            journal.send(Connected(_prepare(connection, job)))
            journal.watch(connection)
        options["transaction_per_migration"] = True
        options["on_version_apply"] = (*_several(options.get("on_version_apply")), _note_heads(journal))
        if job.schema is not None:
            options["version_table_schema"] = job.schema
        original(connection, *args, **options)
        if isinstance(connection, sqlalchemy.Connection):
            journal.held_open = connection.in_transaction()
            _wrap_run_migrations(environment, connection, journal, lambda: original(connection, *args, **options))

    environment.configure = configure  # type: ignore[method-assign]


def _wrap_run_migrations(
    environment: EnvironmentContext,
    connection: sqlalchemy.Connection,
    journal: Journal,
    configure_again: Callable[[], None],
) -> None:
    """Leave alone a transaction that env.py begins after it called configure.

    Alembic looks for one in configure, and would commit this one, with a transaction per migration, after the first
    revision. So it is made to look again.
    """
    run_migrations = type(environment).run_migrations

    def run(**options: Any) -> None:  # noqa: ANN401
        # SQLAlchemy tells nowhere else whether a transaction was begun with `with` or by the first statement, which
        # Alembic ends. The name is private, and the same in 2.0 and 2.1.
        if connection.in_transaction() and connection._trans_context_manager is not None:  # noqa: SLF001
            journal.held_open = True
            configure_again()
        run_migrations(environment, **options)

    environment.run_migrations = run  # type: ignore[method-assign]


def _several(callbacks: Any) -> tuple[Any, ...]:  # noqa: ANN401 - Alembic takes none, one or several
    if callbacks is None:
        return ()
    return (callbacks,) if callable(callbacks) else tuple(callbacks)


def _note_heads(journal: Journal) -> Callable[..., None]:
    def note(*, heads: set[str], **_: Any) -> None:  # noqa: ANN401
        journal.heads = tuple(sorted(heads - journal.forgotten))

    return note


def _prepare(connection: sqlalchemy.Connection, job: Job) -> int:
    """Check where env.py's connection leads and set what its session needs, in one round trip.

    Returns:
        The process id of its backend.

    Raises:
        TargetMismatch: it is not the server and database of the secret.
    """
    server = job.server
    assert server is not None  # noqa: S101 - a job that runs env.py has one
    wanted = f"database {server.database!r} on {job.credentials.host}:{job.credentials.port}"
    advice = f"(does it read {' or '.join(job.settings.url_variables)}? See DATABASE_URL_ENV and DATABASE_ENV)"
    if connection.dialect.name != "postgresql":
        raise TargetMismatch(
            f"env.py connected to {connection.dialect.name}, but the secret names {wanted}; no revision was run"
            f" {advice}"
        )
    values = [
        "pg_backend_pid()",
        "pg_postmaster_start_time()::text",
        "current_database()",
        _set("application_name", job.application_name),
        _set_unless_env_py_did(
            "statement_timeout",
            str(steps.statement_timeout_ms(job)),
            f"setting::int BETWEEN 1 AND {steps.statement_timeout_ms(job)}",
        ),
        _set_unless_env_py_did("lock_timeout", f"{job.settings.lock_timeout_ms}ms"),
        _set_unless_env_py_did("idle_in_transaction_session_timeout", f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s"),
        _set("tcp_keepalives_idle", "10"),
        _set("tcp_keepalives_interval", "5"),
        _set("tcp_keepalives_count", "3"),
        _set("tcp_user_timeout", f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s"),
    ]
    if server.version >= HAS_IDLE_TIMEOUT:
        values.append(_set_unless_env_py_did("idle_session_timeout", f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s"))
    if server.version >= HAS_CONNECTION_CHECK:
        values.append(_set("client_connection_check_interval", str(CONNECTION_CHECK_MS)))
    if job.schema is not None:
        values.append(f"set_config('search_path', quote_ident({_literal(job.schema)}), false)")
        # What Alembic's comparisons take for "no schema".
        connection.dialect.default_schema_name = job.schema
    values.append("true" if job.action in _READ_ONLY else _takes_worker_lock(job))
    # Ended before Alembic looks, and only if it was not env.py that began it.
    with connection.begin() if not connection.in_transaction() else contextlib.nullcontext():
        pid, started, database, *_, still_locked = connection.exec_driver_sql(f"SELECT {', '.join(values)}").one()
    if (started, database) != (server.started, server.database):
        which = "the same" if started == server.started else "another"
        raise TargetMismatch(
            f"env.py connected to database {database!r} on {which} server, but the secret names {wanted}; no revision"
            f" was run {advice}"
        )
    if not still_locked:
        raise ConnectionError("the session that holds the migration lock was lost before env.py had connected")
    return int(pid)


def _takes_worker_lock(job: Job) -> str:
    """SQL that marks env.py's session as one that works under the migration lock, and tells whether that is still held.

    In this order: the next one to take the migration lock looks for such sessions after that, so either it sees this
    one, or this one sees that the lock is no longer ours.
    """
    key = lock_key(job.schema)
    return (
        f"CASE WHEN pg_try_advisory_lock_shared({WORKER_LOCK_CLASS}, {key}) THEN EXISTS ("
        "SELECT FROM pg_locks JOIN pg_stat_activity holder USING (pid) WHERE locktype = 'advisory' AND granted"
        f" AND classid = {LOCK_CLASS} AND objid = {key & 0xFFFFFFFF} AND objsubid = 2"
        f" AND holder.application_name = {_literal(job.application_name)}) END"
    )


def _set(name: str, value: str) -> str:
    return f"set_config('{name}', {_literal(value)}, false)"


def _literal(text: str) -> str:
    """A text as SQL; a driver's placeholders differ, and a percent sign must stay one in all of them."""
    quoted = text.replace("'", "''")
    return f"E'{quoted}'".replace("\\", "\\\\").replace("%", "\\045")


def _set_unless_env_py_did(name: str, value: str, condition: str = "true") -> str:
    """An env.py that sets its own timeout before it calls configure, or as it connects, means it."""
    return (
        f"(SELECT CASE WHEN source IN ('session', 'client') AND {condition} THEN setting"  # noqa: S608 - all ours
        f" ELSE {_set(name, value)} END"
        f" FROM pg_settings WHERE name = '{name}')"
    )
