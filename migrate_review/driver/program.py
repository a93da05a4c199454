"""Runs the backend's env.py and its revisions in the backend's own interpreter, one command at a time.

This module imports only the standard library, Alembic, SQLAlchemy, and modules of ours that do the same. Commands and
answers are lines of JSON on two pipes. The backend's output goes to a file. `process` is the other end.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import alembic
import sqlalchemy
from alembic.autogenerate import RevisionContext
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import ScriptDirectory
from alembic.util import load_python_file
from sqlalchemy import event

from lambda_migrate.database.common import STARTED
from lambda_migrate.database.credentials import Credentials
from lambda_migrate.env_py import alembic_hook, tree
from lambda_migrate.env_py.advice import advice
from lambda_migrate.env_py.flask_app import VARIABLE as FLASK_APP
from lambda_migrate.env_py.flask_app import in_app
from lambda_migrate.env_py.inputs import set_config, set_environment
from lambda_migrate.env_py.messages import Job
from lambda_migrate.env_py.transactions import rows_between
from lambda_migrate.invocation.deadline import Deadline
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.settings import Settings
from migrate_review.driver import branches
from migrate_review.driver.interpreters import packages_advice
from migrate_review.driver.rendering import render
from migrate_review.driver.resuming import Resuming
from migrate_review.driver.watching import Watch, bound
from migrate_review.revisions.function_source import inserted_values, is_empty, upgrade_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext


# State that revisions may leave in a session for later ones: its role, settings and temporary objects.
_SESSION = """
SELECT json_build_object(
    'role', current_user, 'schema', current_schema(), 'search_path', current_setting('search_path'),
    'settings', (SELECT json_object_agg(name, setting ORDER BY name) FROM pg_catalog.pg_settings
                 WHERE source = 'session' AND name <> 'application_name' AND name !~ '^transaction_'),
    'schemas', (SELECT json_agg(nspname ORDER BY nspname) FROM pg_catalog.pg_namespace
                WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')),
    'temporary', (SELECT count(*) FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema())
)::text
"""

# In a connection's `info`: env.py itself began a transaction around all revisions, and ends it.
_HELD_OPEN = "review_held_open"


class _RefusedError(Exception):
    """The review cannot continue. The message is for the person who started it."""


class _EnvPyFailedError(_RefusedError):
    """env.py failed before any revision began. Another process may run it, if state of this one is the reason."""


class _StoppedError(BaseException):
    """A revision was stopped. No ``except Exception`` of the revision's own catches it, as none catches a kill."""


@dataclass
class _Wire:
    """The two pipes: reads and writes one line of JSON at a time."""

    commands: TextIO
    answers: TextIO

    def read(self) -> dict[str, Any] | None:
        line = self.commands.readline()
        return json.loads(line) if line else None

    def write(self, message: Mapping[str, Any]) -> None:
        self.answers.write(json.dumps(message) + "\n")
        self.answers.flush()


@dataclass
class _Driver:
    """A backend's tree, the folder that the alembic command is run in, and the database that env.py must connect to."""

    job: Job
    folder: Path
    server: str
    pass_timeout_s: float
    wire: _Wire
    resuming: Resuming
    engines: set[sqlalchemy.Engine] = field(default_factory=set)
    # The Flask application's context, and what the application adds to Alembic's configuration.
    _contexts: ExitStack = field(default_factory=ExitStack)
    _complete: Callable[[Config], Config] | None = None
    _script: ScriptDirectory | None = None
    # The models as they were before any revision ran.
    _models: list[Any] | None = None
    # The parts of the revision that was loaded last.
    _branches: branches.Branches | None = None

    @property
    def script(self) -> ScriptDirectory:
        if self._script is None:
            self._script = ScriptDirectory.from_config(self._config())
        return self._script

    def _config(self) -> Config:
        """Return a new configuration for each run, without the connection that env.py may leave in it."""
        config = tree.read_config(self.job.settings.alembic_config)
        set_config(config, replace(self.job, deadline=Deadline.after(self.pass_timeout_s)))
        if self._complete is None:
            # Once in a process, as the flask command does it: not every application can be made twice.
            try:
                application = in_app(tree.env_py(config), os.environ.get(FLASK_APP))
                self._complete = self._contexts.enter_context(application)
            except ConfigurationError:
                raise
            except Exception as error:
                raise _EnvPyFailedError(self._env_py_failure(error)) from error
        return self._complete(config)

    # --- commands ---

    def tree(self) -> dict[str, Any]:
        """Return every revision, parents first.

        Alembic imports the revisions after env.py has begun, and some import what env.py has made importable.
        """
        found: dict[str, Any] = {}

        def steps(*_: object) -> Sequence[Any]:
            try:
                found.update(_tree(self.script))
            except BaseException as error:
                folder = self.folder
                raise _RefusedError(f"{_described(error, folder)}{_import_advice(error, folder)}") from error
            return ()

        versions = {"alembic": alembic.__version__, "sqlalchemy": sqlalchemy.__version__}
        return {**self._run(steps), **found, "versions": versions}

    def render(self, revision: str) -> dict[str, Any]:
        """Return the SQL of a revision that cannot run, as ``alembic upgrade --sql`` writes it, without any database.

        The statements end where the revision needs a database.
        """
        statements: list[dict[str, Any]] = []

        def steps(*_: object) -> Sequence[Any]:
            with suppress(BaseException):
                render(self.script, revision, statements)
            return ()

        return {**self._run(steps), "statements": statements}

    def apply(self, revisions: Sequence[str]) -> dict[str, Any]:
        """Apply these revisions in order, without measuring. Return those that were applied."""
        done: list[str] = []
        found: dict[str, Any] = {"applied": done}

        def steps(_: object, context: MigrationContext) -> Iterator[Any]:
            for revision in revisions:
                self.wire.write({"began": revision})
                yield from self._one(context, self._step("upgrade", revision))
                done.append(revision)

        try:
            found |= self._run(steps)
        except _RefusedError:
            raise
        except BaseException as error:  # noqa: BLE001 - sys.exit in a revision included
            found["failure"] = _failure(error)
        return found

    def step(self, direction: str, revision: str, tables: Mapping[str, str], rows: Mapping[str, int]) -> dict[str, Any]:
        """Run one revision in one direction. Return the measurements of its statements."""
        watch = Watch(
            {int(oid): name for oid, name in tables.items()},
            {int(oid): count for oid, count in rows.items()},
            self._ask_outside,
        )

        def steps(_: object, context: MigrationContext) -> Iterator[Any]:
            step = self._step(direction, revision)
            run = step.migration_fn

            @wraps(run)
            def watched(**options: Any) -> None:  # noqa: ANN401
                before = self._sessions()
                with watch.watching():
                    run(**options)
                opened = self._sessions() - before
                if opened:
                    several = "another connection" if opened == 1 else f"{opened} more connections"
                    watch.left_out.append(
                        f"it opened {several} to the database, whose statements the review does not see"
                    )

            step.migration_fn = watched
            assert context.connection is not None  # noqa: S101 - online, so there is one
            watch.attach(context.connection)
            yield from self._one(context, step)

        found: dict[str, Any] = {"failure": None}
        try:
            found |= self._run(steps)
        except _RefusedError:
            raise
        except BaseException as error:  # noqa: BLE001 - sys.exit in a revision included
            found["failure"] = {**_failure(error), "sql": watch.failed_sql}
        left_out = watch.left_out if direction == "upgrade" else []
        if direction == "upgrade" and self._branches is not None:
            left_out += [f"it did not run {part}" for part in self._branches.left_out()]
        return {**found, "statements": watch.statements, "idle_ms": watch.idle_ms, "left_out": left_out}

    def stop(self, revision: str, before: int) -> dict[str, Any]:
        """Begin the upgrade of a revision, and stop it before this statement, counted from 0, as a kill would."""
        found = {"stopped": False}

        def steps(heads: Any, context: MigrationContext) -> Iterator[Any]:  # noqa: ANN401
            step = self._step("upgrade", revision)
            run = step.migration_fn
            connection = context.connection
            assert connection is not None  # noqa: S101 - online, so there is one
            left = before
            journal = self.resuming.start(revision, heads, context)

            def count(*_: object) -> None:
                nonlocal left
                if journal.is_busy:
                    return
                if not left:
                    found["stopped"] = True
                    raise _StoppedError  # SQLAlchemy closes the connection, and the server rolls back what is open
                left -= 1

            @wraps(run)
            def stopped(**options: Any) -> None:  # noqa: ANN401
                event.listen(connection, "before_cursor_execute", count)
                try:
                    run(**options)
                finally:
                    event.remove(connection, "before_cursor_execute", count)

            step.migration_fn = stopped
            yield from self._one(context, step)

        try:
            with self.resuming:
                self._run(steps)
        except _RefusedError:
            raise
        except BaseException:  # noqa: BLE001, S110 - ours, or what the closed connection makes of it
            pass
        return found

    def resume(self, revision: str) -> dict[str, Any]:
        """Run the upgrade of a stopped revision again. Like the function, skip the committed statements."""
        failed: list[str] = []

        def note(context: Any) -> None:  # noqa: ANN401 - SQLAlchemy's ExceptionContext
            if context.statement is not None:
                failed.append(bound(None, context.statement, context.parameters))

        def steps(heads: Any, context: MigrationContext) -> Iterator[Any]:  # noqa: ANN401
            assert context.connection is not None  # noqa: S101 - online, so there is one
            event.listen(context.connection.engine, "handle_error", note)
            self.resuming.start(revision, heads, context)
            yield from self._one(context, self._step("upgrade", revision))

        found: dict[str, Any] = {"failure": None}
        try:
            with self.resuming:
                found |= self._run(steps)
        except _RefusedError:
            raise
        except BaseException as error:  # noqa: BLE001 - sys.exit in a revision included
            found["failure"] = {**_failure(error), "sql": failed[-1] if failed else None}
        return found

    def drift(self) -> dict[str, Any]:
        """Return what autogenerate would write, one line a difference, by the same class as ``alembic check``.

        ``changed`` is True if a revision has left something in the models: another process has to compare them.
        """
        differences: list[str] = []
        found = {"changed": False}

        def steps(heads: Any, context: MigrationContext) -> Sequence[Any]:  # noqa: ANN401
            models = context.opts.get("target_metadata")
            if models is not None and _described_models(models) != self._models:
                found["changed"] = True
                return ()
            if models is None:
                raise _RefusedError("env.py gives Alembic no target_metadata, so there are no models to compare")
            arguments = {
                "message": None, "autogenerate": True, "sql": False, "head": "heads", "splice": False,
                "branch_label": None, "version_path": None, "rev_id": None, "depends_on": None,
            }  # fmt: skip
            generation = RevisionContext(self._config(), self.script, arguments)
            generation.run_autogenerate(heads, context)
            for generated in generation.generated_revisions[-1:]:
                for operations in generated.upgrade_ops_list:
                    differences.extend(_difference(each) for each in operations.as_diffs())
            return ()

        return {**self._run(steps), **found, "differences": differences}

    def replay(self, revision: str) -> dict[str, Any]:
        """Upgrade like ``alembic upgrade``. Return the place of each of env.py's version tables, and the sessions.

        It measures nothing, and env.py decides about the transactions.
        """
        calls: list[dict[str, Any]] = []

        def steps(heads: Any, context: MigrationContext) -> Iterator[Any]:  # noqa: ANN401
            connection = context.connection
            assert connection is not None  # noqa: S101 - online, so there is one
            planned = tree.upgrade_steps(self.script, revision, heads)
            found = {
                "configured": [context.version_table_schema, context.version_table],
                "heads": [],
                "steps": len(planned),
                "before": rows_between(connection, _SESSION)[0][0],
            }
            calls.append(found)
            yield from planned
            found["after"] = rows_between(connection, _SESSION)[0][0]

        def note_heads(*, heads: set[str], **_: Any) -> None:  # noqa: ANN401
            calls[-1]["heads"] = sorted(heads)

        with EnvironmentContext(self._config(), self.script, fn=steps, destination_rev=revision) as environment:
            configure = environment.configure

            def wrapped(connection: Any = None, *args: Any, **options: Any) -> None:  # noqa: ANN401
                self._prepare(connection)
                if self.job.schema is not None:
                    options["version_table_schema"] = self.job.schema
                    connection.dialect.default_schema_name = self.job.schema
                given = options.get("on_version_apply") or ()
                options["on_version_apply"] = (*((given,) if callable(given) else given), note_heads)
                configure(connection, *args, **options)

            environment.configure = wrapped  # type: ignore[method-assign]
            try:
                self.script.run_env()
            except ConfigurationError as error:
                raise _RefusedError(str(error)) from error
            except BaseException as error:
                if calls:
                    return {"calls": calls, "failure": _described(error, self.folder)}
                raise _EnvPyFailedError(self._env_py_failure(error)) from error
            finally:
                self._drop_connections()
        return {"calls": calls, "failure": None}

    def forget(self) -> dict[str, Any]:
        """Drop pooled connections. The database is a new one, so they are dead."""
        self._drop_connections()
        return {}

    def _drop_connections(self) -> None:
        for engine in self.engines:
            engine.dispose(close=False)
        self.engines.clear()

    # --- one run of env.py ---

    def _step(self, direction: str, revision: str) -> Any:  # noqa: ANN401 - Alembic exports no name for its steps
        script = self.script.get_revision(revision)
        # Each run of the alembic command imports the file again. A module may hold objects for one run only, such as a
        # MetaData that already has its tables in a second run.
        if script.path.endswith(".py"):
            script.module, self._branches = branches.load(Path(script.path))
        else:
            script.module, self._branches = load_python_file(*os.path.split(script.path)), None
        make = MigrationStep.upgrade_from_script if direction == "upgrade" else MigrationStep.downgrade_from_script
        return make(self.script.revision_map, script)

    def _one(self, context: MigrationContext, step: Any) -> Iterator[Any]:  # noqa: ANN401
        yield step
        # If the revision committed by itself, Alembic wrote the new version in a transaction that it does not end.
        connection = context.connection
        if connection is not None and connection.in_transaction() and not connection.info.get(_HELD_OPEN):
            connection.commit()

    def _run(self, steps: Callable[..., Any]) -> dict[str, Any]:
        """Run env.py with these steps. Return the name of its version table."""
        found: dict[str, Any] = {}

        def begin(heads: Any, context: MigrationContext) -> Any:  # noqa: ANN401
            found["version_table"] = [context.version_table_schema, context.version_table]
            if self._models is None:
                self._models = _described_models(context.opts.get("target_metadata"))
            yield from steps(heads, context)

        with EnvironmentContext(self._config(), self.script, fn=begin, destination_rev="heads") as environment:
            alembic_hook.install(
                environment,
                prepare=self._prepare,
                set_held_open=_set_held_open,
                change_options=self.resuming.change_options,
            )
            try:
                self.script.run_env()
            except ConfigurationError as error:
                raise _RefusedError(str(error)) from error
            except _RefusedError:
                raise
            except BaseException as error:
                if found:
                    raise
                raise _EnvPyFailedError(self._env_py_failure(error)) from error
            finally:
                # A connection in the pool of a module's async engine belongs to the event loop of this run.
                self._drop_connections()
        if not found:
            raise _RefusedError("env.py ended without calling context.run_migrations()")
        return found

    def _env_py_failure(self, error: BaseException) -> str:
        """Return why env.py failed before any revision began, and what to do."""
        folder = self.folder
        hint = advice(error, began=False) or _import_advice(error, folder)
        return f"env.py failed before any revision ran: {_described(error, folder)}{hint}"

    def _prepare(self, connection: sqlalchemy.Connection) -> None:
        self._check_target(connection)
        self.engines.add(connection.engine)
        self.resuming.watch(connection)

    def _check_target(self, connection: sqlalchemy.Connection) -> None:
        """Raise `_RefusedError` for any database but the review's own: a review fills tables and drops them."""
        if connection.dialect.name != "postgresql":
            raise _RefusedError(
                f"env.py connected to {connection.dialect.name}, not to the review's PostgreSQL: {_advice(self.job)}"
            )
        # Alembic takes a transaction that is open in configure() for env.py's own: end the one that this query begins.
        with connection.begin() if not connection.in_transaction() else nullcontext():
            found = connection.exec_driver_sql(f"SELECT {STARTED} || ' ' || current_database()").scalar_one()
        if found != self.server:
            raise _RefusedError(
                f"env.py connected to database {found.split(' ')[-1]!r}, not to that of the review; no revision was"
                f" run: {_advice(self.job)}"
            )

    def _sessions(self) -> int:
        """Return how many sessions the review's database has had, without the review's own."""
        self.wire.write({"count_sessions": True})
        answer = self.wire.read()
        return answer["sessions"] if answer else 0

    def _ask_outside(self, pid: int | None) -> list[tuple[int, str]]:
        """Have the other end watch the locks of the server process ``pid``; with None, return the locks that it saw."""
        self.wire.write({"look_at": pid})
        answer = self.wire.read()
        return [(oid, mode) for oid, mode in answer["locks"]] if answer else []


def _set_held_open(connection: sqlalchemy.Connection, held_open: bool) -> None:  # noqa: FBT001 - the hook's signature
    connection.info[_HELD_OPEN] = held_open


def _advice(job: Job) -> str:
    names = " or ".join(job.settings.url_variables)
    return f"does it read {names}? See DATABASE_URL_ENV and DATABASE_ENV"


def _ids(script: ScriptDirectory, given: Any) -> list[str]:  # noqa: ANN401 - Alembic takes none, one or several
    """Return the full ids for what Alembic allows in their place: labels and the beginnings of ids."""
    names = (given,) if isinstance(given, str) else tuple(given or ())
    return [each.revision for name in names for each in script.get_revisions(name)]


def _tree(script: ScriptDirectory) -> dict[str, Any]:
    parents_first = [*script.walk_revisions()][::-1]
    return {
        "heads": sorted(script.get_heads()),
        "revisions": [
            {
                "revision": each.revision,
                "description": each.doc,
                "parents": _ids(script, each.down_revision),
                "dependencies": _ids(script, each.dependencies),
                "path": each.path,
                **_read_functions(Path(each.path).read_bytes()),
            }
            for each in parents_first
        ],
    }


def _import_advice(error: BaseException, folder: Path) -> str:
    """Return what to do about a module that cannot be imported, or an empty text."""
    if not isinstance(error, ImportError):
        return ""
    name = (error.name or "").partition(".")[0]
    if name and ((folder / name).is_dir() or (folder / f"{name}.py").is_file()):
        return f" ({name} is in the backend's folder: set prepend_sys_path = . in the [alembic] section)"
    return f" ({packages_advice(Path(sys.executable))})"


def _read_functions(source: bytes) -> dict[str, Any]:
    return {
        "upgrade_texts": upgrade_texts(source),
        "inserted": sorted(inserted_values(source)),
        "empty": {name: is_empty(source, name) for name in ("upgrade", "downgrade")},
    }


def _difference(diff: Any) -> str:  # noqa: ANN401 - a tuple, or a list of them for one column
    """Return one line of words for what ``alembic check`` prints as a tuple of objects."""
    if isinstance(diff, list):
        return "; ".join(_difference(each) for each in diff)
    kind, *rest = diff
    if kind.startswith("modify_"):
        _, table, column, _, old, new = rest
        return f"{kind} {table}.{column}: {old!r} in the database, {new!r} in the models"
    if kind in {"add_column", "remove_column"}:
        return f"{kind} {rest[1]}.{rest[2].name}"
    subject = rest[0]
    table = getattr(subject, "table", None)
    name = getattr(subject, "name", None) or subject
    return f"{kind} {name}" if table is None or table is subject else f"{kind} {name} on {table.name}"


def _described_models(models: Any) -> list[Any]:  # noqa: ANN401 - a MetaData, several or None
    """Return the tables and columns of env.py's models."""
    several = models if isinstance(models, list | tuple) else [] if models is None else [models]
    return [
        [table.key, [(column.name, type(column.type).__name__, column.nullable) for column in table.columns]]
        for each in several
        for table in each.tables.values()
    ]


def _failure(error: BaseException) -> dict[str, Any]:
    """Return the reason of a failure in one line, and PostgreSQL's code for it."""
    cause: Any = getattr(error, "orig", None) or error
    # SQLAlchemy's asyncpg adapter wraps the driver's own error twice.
    if cause is not error and cause.__cause__ is not None and not hasattr(cause, "diag"):
        cause = cause.__cause__
    message = getattr(getattr(cause, "diag", None), "message_primary", None) or str(cause)
    sqlstate = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    text = " ".join(f"{type(cause).__name__}: {message}".split()).rstrip(": ")
    return {"text": f"{text} (SQLSTATE {sqlstate})" if sqlstate else text, "sqlstate": sqlstate}


def _place(error: BaseException, folder: Path) -> str:
    """Return the backend's own file and line that raised an error, or "" if none did."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(Path(error.filename), folder)}:{error.lineno}: "
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(folder) and "site-packages" not in frame.filename
    ]
    return f"{_relative(Path(own[-1].filename), folder)}:{own[-1].lineno}: " if own else ""


def _relative(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def _described(error: BaseException, folder: Path) -> str:
    if isinstance(error, _RefusedError):
        return str(error)
    return f"{_place(error, folder)}{_failure(error)['text']}"


def _make(start: Mapping[str, Any], wire: _Wire) -> _Driver:
    path = Path(start["config"])
    credentials = Credentials(**{**start["credentials"], "sslrootcert": Path(start["credentials"]["sslrootcert"])})
    settings = Settings(
        stage="review",
        secret_id="",
        driver=start["driver"],
        url_variables=tuple(start["url_variables"]),
        env_variables=start["env_variables"],
        x_arguments=start["x_arguments"],
        alembic_config=path,
    )
    job = Job(
        action="upgrade",
        revision="heads",
        settings=settings,
        credentials=credentials,
        application_name="migrate review",
        deadline=Deadline.after(start["pass_timeout_s"]),
        # Revisions that are run once for each schema are measured in one.
        schema=start.get("schema")
        or ("public" if any("{schema}" in text for text in settings.x_arguments.values()) else None),
    )
    return _Driver(job, Path(start["folder"]), start["server"], start["pass_timeout_s"], wire, Resuming(job))


# The function works with older ones, too.
_OLDEST = {"alembic": "1.13", "sqlalchemy": "2.0"}


def _too_old() -> str | None:
    """Return which library of the backend is older than the review can use, None if none is."""
    for name, oldest in _OLDEST.items():
        installed = version(name)
        if _numbers(installed) < _numbers(oldest):
            return (
                f"the backend has {name} {installed}; the review works with {oldest} and later. Raise it in the"
                " backend's requirements, or name an interpreter that has a later one with --python"
            )
    return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", text)[:2])


def main() -> None:
    """Execute commands until the pipe closes. The descriptors of both pipes are this program's arguments."""
    commands, answers = (int(argument) for argument in sys.argv[1:3])
    sys.argv[1:] = []
    with os.fdopen(commands) as readable, os.fdopen(answers, "w") as writable:
        wire = _Wire(readable, writable)
        start = wire.read()
        if start is None:
            return
        too_old = _too_old()
        if too_old is not None:
            while wire.read() is not None:
                wire.write({"refused": too_old})
            return
        driver = _make(start, wire)
        folder = driver.folder
        set_environment(driver.job)
        # Relative paths in the config file and in env.py refer to the folder in which the alembic command runs.
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        event.listen(sqlalchemy.Engine, "engine_connect", lambda connection: driver.engines.add(connection.engine))
        wire.write({"began": None})
        while (command := wire.read()) is not None:
            try:
                wire.write({"done": getattr(driver, command.pop("do"))(**command)})
            except _EnvPyFailedError as error:
                wire.write({"env_py": str(error)})
            except ConfigurationError as error:
                wire.write({"refused": str(error)})
            except BaseException as error:  # noqa: BLE001 - sys.exit in env.py included
                wire.write({"refused": _described(error, folder)})
