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
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import event

from lambda_migrate import tree
from lambda_migrate.capture import output_as_messages
from lambda_migrate.contract import ConfigurationError, Revision, TargetMismatch, UnknownRevision
from lambda_migrate.database import (
    CONNECTION_CHECK_MS,
    HAS_CONNECTION_CHECK,
    IDLE_IN_TRANSACTION_TIMEOUT_S,
    Server,
)
from lambda_migrate.failures import failure_of
from lambda_migrate.messages import Began, Connected, Ended, IndexDropped, Message, Ran, Started

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from lambda_migrate.credentials import Credentials
    from lambda_migrate.deadline import Deadline
    from lambda_migrate.settings import Settings

# A statement gets this share of the time left, so that the timeout need not be set again before each revision but only
# once that much has passed. The supervisor cancels what is still running when time is up.
_STATEMENT_SHARE = 0.98
_CONNECT_TIMEOUT_S = 10

_NO_WORK = re.compile(r"\s*(--[^\n]*\n\s*)*(SELECT|SET|SHOW|RESET|BEGIN|COMMIT|ROLLBACK)\b", re.IGNORECASE)
_BUILDS_INDEX = re.compile(
    r"\s*CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?"
    r'(?P<index>"(?:[^"]|"")+"|\w+)\s+ON\s+(?:ONLY\s+)?(?P<table>(?:"(?:[^"]|"")+"|\w+)(?:\.(?:"(?:[^"]|"")+"|\w+))?)',
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Job:
    """One run of env.py: what is wanted, where, and until when."""

    revision: str
    settings: Settings
    credentials: Credentials
    server: Server
    application_name: str
    deadline: Deadline


def run(job: Job, send: Callable[[Message], None]) -> None:
    """Run env.py and report. Whatever happens, the last message is `Ended`, unless the process itself dies."""
    journal = _Journal(send)
    ended: Ended
    try:
        with output_as_messages(send):
            stopped = _run_env_py(job, journal)
        ended = Ended(stopped=stopped)
    except BaseException as error:  # noqa: BLE001 - sys.exit, KeyboardInterrupt and running out of memory included
        ended = Ended(failure_of(error, journal.revision, began=journal.began, partly_committed=journal.committed_work))
    send(ended)


@dataclass
class _Journal:
    """What the current revision has done so far, as seen on env.py's connection."""

    send: Callable[[Message], None]
    began: bool = False
    revision: Revision | None = None
    heads: tuple[str, ...] = ()
    uncommitted_work: bool = False
    committed_work: bool = False

    def start(self, revision: Revision) -> None:
        self.revision = revision
        self.uncommitted_work = self.committed_work = False

    def watch(self, connection: sqlalchemy.Connection) -> None:
        """Notice work and commits, so that a revision that committed half of itself is not blindly run again."""

        def executed(conn: Any, cursor: Any, statement: str, *_: Any) -> None:  # noqa: ANN401, ARG001
            if _NO_WORK.match(statement):
                return
            if conn.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
                self.committed_work = True
            else:
                self.uncommitted_work = True

        def committed(conn: Any) -> None:  # noqa: ANN401, ARG001
            self.committed_work |= self.uncommitted_work
            self.uncommitted_work = False

        event.listen(connection, "after_cursor_execute", executed)
        event.listen(connection, "commit", committed)


def _run_env_py(job: Job, journal: _Journal) -> bool:
    """Whether the run stopped for lack of time."""
    settings, credentials = job.settings, job.credentials
    config_path = settings.alembic_config
    _set_environment(job)
    if not config_path.parent.is_dir():
        raise ConfigurationError(f"the package has no folder {config_path.parent.name}")
    # Relative paths in the config file and in env.py are meant from the folder that the alembic command runs in.
    os.chdir(config_path.parent)
    sys.path.insert(0, str(config_path.parent))
    config = tree.read_config(config_path)
    _set_url(config, credentials, settings.driver)
    config.attributes = _Attributes(lambda: _own_engine(credentials, settings.driver))
    script = tree.load(config)
    steps = _Steps(job, script, journal)
    with EnvironmentContext(config, script, fn=steps.upgrade, destination_rev=job.revision) as environment:
        _wrap_configure(environment, job, journal)
        script.run_env()
    if not journal.began:
        raise ConfigurationError("env.py came to its end without calling context.run_migrations()")
    return steps.stopped


def _set_environment(job: Job) -> None:
    """Everything by which an env.py may learn its address and TLS settings."""
    credentials, settings = job.credentials, job.settings
    placeholders = credentials.placeholders(settings.driver)
    os.environ.update(dict.fromkeys(settings.url_variables, credentials.url(settings.driver)))
    os.environ.update({name: _filled(text, placeholders) for name, text in settings.env_variables.items()})
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


class _Attributes(dict[str, Any]):
    """`Config.attributes` that makes a connection only for an env.py that asks for one."""

    def __init__(self, make_engine: Callable[[], sqlalchemy.Engine]) -> None:
        super().__init__()
        self._make_engine = make_engine

    def __missing__(self, key: str) -> Any:  # noqa: ANN401
        if key != "connection":
            raise KeyError(key)
        self[key] = self._make_engine().connect()
        return self[key]

    def __contains__(self, key: object) -> bool:
        return key == "connection" or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        return self[key] if key in self else default  # noqa: SIM401 - that would call this method


def _own_engine(credentials: Credentials, driver: str) -> sqlalchemy.Engine:
    # A connection that is handed over is used without asyncio.
    url = credentials.url(driver if "asyncpg" not in driver else "postgresql+psycopg2")
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)


def _wrap_configure(environment: EnvironmentContext, job: Job, journal: _Journal) -> None:
    # On the instance: Alembic binds its `context` proxy to the exact class, so that a subclass is not seen.
    original = environment.configure

    def configure(connection: sqlalchemy.Connection | None = None, *args: Any, **options: Any) -> None:  # noqa: ANN401
        if options.get("upgrade_token", "upgrades") != "upgrades":
            raise ConfigurationError("env.py is of Alembic's multidb template: one function migrates one database")
        if connection is not None:
            journal.send(Connected(_prepare(connection, job)))
            journal.watch(connection)
            _drop_invalid_indexes(connection, journal)
        apply = options.get("on_version_apply") or ()
        callbacks = tuple(apply) if isinstance(apply, Sequence) else (apply,)
        original(
            connection,
            *args,
            **{
                **options,
                "transaction_per_migration": True,
                "on_version_apply": (*callbacks, _note_heads(journal)),
            },
        )

    environment.configure = configure  # type: ignore[method-assign]


def _note_heads(journal: _Journal) -> Callable[..., None]:
    def note(*, heads: set[str], **_: Any) -> None:  # noqa: ANN401
        journal.heads = tuple(sorted(heads))

    return note


def _prepare(connection: sqlalchemy.Connection, job: Job) -> int:
    """Check where env.py's connection leads and set what its session needs, in one round trip.

    Returns:
        The process id of its backend.

    Raises:
        TargetMismatch: it is not the server and database of the secret.
    """
    settings = job.settings
    wanted = f"database {job.server.database!r} on {job.credentials.host}:{job.credentials.port}"
    if connection.dialect.name != "postgresql":
        raise TargetMismatch(
            f"env.py connected to {connection.dialect.name}, but the secret names {wanted}; no revision was run (does"
            f" it read {' or '.join(settings.url_variables)}? See DATABASE_URL_ENV and DATABASE_ENV)"
        )
    values = [
        "pg_backend_pid()",
        "pg_postmaster_start_time()::text",
        "current_database()",
        _set("application_name", job.application_name.replace("'", "")),
        _set("statement_timeout", str(_statement_timeout_ms(job))),
        _set_unless_env_py_did("lock_timeout", f"{settings.lock_timeout_ms}ms"),
        _set_unless_env_py_did("idle_in_transaction_session_timeout", f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s"),
        _set("tcp_keepalives_idle", "10"),
        _set("tcp_keepalives_interval", "5"),
        _set("tcp_keepalives_count", "3"),
    ]
    if job.server.version >= HAS_CONNECTION_CHECK:
        values.append(_set("client_connection_check_interval", str(CONNECTION_CHECK_MS)))
    with connection.begin() if not connection.in_transaction() else contextlib.nullcontext():
        pid, started, database, *_ = connection.exec_driver_sql(f"SELECT {', '.join(values)}").one()
    if (started, database) != (job.server.started, job.server.database):
        raise TargetMismatch(
            f"env.py connected to database {database!r} on {'another' if started != job.server.started else 'the same'}"
            f" server, but the secret names {wanted}; no revision was run (does it read"
            f" {' or '.join(settings.url_variables)}? See DATABASE_URL_ENV and DATABASE_ENV)"
        )
    return int(pid)


def _set(name: str, value: str) -> str:
    return f"set_config('{name}', '{value}', false)"


def _set_unless_env_py_did(name: str, value: str) -> str:
    """An env.py that sets its own lock_timeout before it calls configure means it."""
    return (
        f"(SELECT CASE WHEN source = 'session' THEN setting ELSE {_set(name, value)} END"  # noqa: S608 - all ours
        f" FROM pg_settings WHERE name = '{name}')"
    )


def _statement_timeout_ms(job: Job) -> int:
    left = max(1, int(job.deadline.left() * 1000 * _STATEMENT_SHARE))
    return min(job.settings.statement_timeout_ms or left, left)


@dataclass
class _Steps:
    """The work that Alembic asks for when env.py calls ``context.run_migrations()``."""

    job: Job
    script: ScriptDirectory
    journal: _Journal
    stopped: bool = field(default=False)

    def upgrade(self, current: Sequence[str], context: MigrationContext) -> Iterator[Any]:
        """The steps to the wanted revision. Alembic asks for the next one when it has committed the last."""
        heads = tuple(sorted(current))
        schema = _version_schema(context)
        self.journal.began = True
        try:
            tree.check_known(self.script, heads)
        except UnknownRevision:
            if not self.job.settings.newer_database_ok:
                raise
            self.journal.send(Began(heads, (), 0, schema, context.version_table, ahead=True))
            return
        pending = tuple(tree.described(step) for step in tree.upgrade_steps(self.script, "heads", heads))
        steps = tree.upgrade_steps(self.script, self.job.revision, heads)
        self.journal.send(Began(heads, pending, len(steps), schema, context.version_table))
        yield from self._one_by_one(steps, context)

    def _one_by_one(self, steps: Sequence[Any], context: MigrationContext) -> Iterator[Any]:
        connection = context.connection
        assert connection is not None  # noqa: S101 - online, so there is one
        deadline = self.job.deadline
        timeout_set_at = deadline.left()
        for step in steps:
            left = deadline.left()
            if left <= 0:
                self.stopped = True
                return
            if left < timeout_set_at * _STATEMENT_SHARE:
                timeout_set_at = left
                connection.exec_driver_sql(f"SET statement_timeout = {_statement_timeout_ms(self.job)}")
            revision = tree.described(step)
            self.journal.start(revision)
            self.journal.send(Started(revision, tuple(step.from_revisions)))
            started = time.monotonic()
            yield step
            # Alembic came back for more, so this step is behind it: committed, unless env.py holds a transaction open.
            self.journal.revision = None
            self.journal.send(
                Ran(
                    revision,
                    self.journal.heads,
                    round((time.monotonic() - started) * 1000),
                    committed=not connection.in_transaction(),
                )
            )


def _version_schema(context: MigrationContext) -> str:
    """The schema of the version table as env.py's own session finds it."""
    connection = context.connection
    assert connection is not None  # noqa: S101 - online, so there is one
    if context.version_table_schema:
        return str(context.version_table_schema)
    sql = sqlalchemy.text(
        "SELECT coalesce((SELECT nspname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE pg_class.oid = to_regclass(quote_ident(:name))), current_schema(), 'public')"
    )
    schema: str = connection.execute(sql, {"name": context.version_table}).scalar_one()
    return schema


def _drop_invalid_indexes(connection: sqlalchemy.Connection, journal: _Journal) -> None:
    """Before an index is built concurrently, drop the invalid one that an interrupted attempt left under its name.

    With IF NOT EXISTS PostgreSQL would keep the broken one and say nothing, and without it, it would refuse.
    """

    def before(conn: sqlalchemy.Connection, cursor: Any, statement: str, *_: Any) -> None:  # noqa: ANN401, ARG001
        builds = _BUILDS_INDEX.match(statement)
        if builds is None or journal.revision is None:
            return
        found = conn.execute(
            sqlalchemy.text(
                "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
                " WHERE i.indrelid = to_regclass(:table) AND NOT i.indisvalid"
                " AND c.oid = to_regclass((SELECT quote_ident(nspname) FROM pg_namespace WHERE oid = c.relnamespace)"
                " || '.' || :index)"
                " AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)"
            ),
            {"table": builds["table"], "index": builds["index"]},
        ).scalar()
        if found is not None:
            conn.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {found}")
            journal.send(IndexDropped(found, journal.revision))

    event.listen(connection, "before_cursor_execute", before)
