"""Runs the backend's env.py, as the alembic command does, with the driver's own steps instead of an upgrade."""

from __future__ import annotations

import os
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from alembic.script import ScriptDirectory
from alembic.util import load_python_file

from lambda_migrate.env_py import alembic_hook, tree
from lambda_migrate.env_py.flask_app import VARIABLE as FLASK_APP
from lambda_migrate.env_py.flask_app import in_app
from lambda_migrate.env_py.inputs import set_config
from lambda_migrate.invocation.deadline import Deadline
from lambda_migrate.invocation.errors import ConfigurationError
from migrate_review.driver import branches
from migrate_review.driver.failures import EnvPyFailedError, RefusedError, env_py_failure
from migrate_review.driver.wire import IDENTITY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import sqlalchemy
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext

    from lambda_migrate.env_py.messages import Job
    from migrate_review.driver.resuming import Resuming


# The key in a connection's `info`: env.py itself begins and ends a transaction around all revisions.
_HELD_OPEN = "review_held_open"


@dataclass
class EnvPy:
    """A backend's tree, the folder that the alembic command is run in, and the database that env.py must connect to."""

    job: Job
    folder: Path
    server: str
    pass_timeout_s: float
    resuming: Resuming
    engines: set[sqlalchemy.Engine] = field(default_factory=set)
    # The Flask application's context, and the function that adds the application's values to Alembic's configuration.
    _contexts: ExitStack = field(default_factory=ExitStack)
    _complete: Callable[[Config], Config] | None = None
    _script: ScriptDirectory | None = None
    # The models as they were before any revision ran.
    models: list[Any] | None = None
    # The parts of the revision that was loaded last.
    loaded_branches: branches.Branches | None = None

    @property
    def script(self) -> ScriptDirectory:
        """The tree."""
        if self._script is None:
            self._script = ScriptDirectory.from_config(self.config())
        return self._script

    def config(self) -> Config:
        """Return a new configuration for each run, without the connection that env.py may leave in it."""
        config = tree.read_config(self.job.settings.alembic_config)
        set_config(config, replace(self.job, deadline=Deadline.after(self.pass_timeout_s)))
        if self._complete is None:
            # Once for each process, like the flask command: not every application can be created twice.
            try:
                application = in_app(tree.env_py(config), os.environ.get(FLASK_APP))
                self._complete = self._contexts.enter_context(application)
            except ConfigurationError:
                raise
            except Exception as error:
                raise EnvPyFailedError(env_py_failure(error, self.folder)) from error
        return self._complete(config)

    def run(self, steps: Callable[..., Any]) -> dict[str, Any]:
        """Run env.py with these steps. Return the name of its version table."""
        found: dict[str, Any] = {}

        def begin(heads: Any, context: MigrationContext) -> Any:  # noqa: ANN401
            found["version_table"] = [context.version_table_schema, context.version_table]
            if self.models is None:
                self.models = described_models(context.opts.get("target_metadata"))
            yield from steps(heads, context)

        with EnvironmentContext(self.config(), self.script, fn=begin, destination_rev="heads") as environment:
            alembic_hook.install(
                environment,
                prepare=self.prepare,
                set_held_open=_set_held_open,
                change_options=self.resuming.change_options,
            )
            self.run_to_its_end(found)
        if not found:
            raise RefusedError("env.py ended without calling context.run_migrations()")
        return found

    def run_to_its_end(self, begun: Collection[object]) -> None:
        """Run env.py, and drop its connections. ``begun`` is empty until env.py calls ``run_migrations()``.

        Raises:
            RefusedError: the review cannot run this env.py. `EnvPyFailedError`, if it failed while ``begun`` was empty.
        """
        try:
            self.script.run_env()
        except ConfigurationError as error:
            raise RefusedError(str(error)) from error
        except BaseException as error:
            if begun or isinstance(error, RefusedError):
                raise
            raise EnvPyFailedError(env_py_failure(error, self.folder)) from error
        finally:
            # A connection in the pool of a module's async engine belongs to the event loop of this run.
            self.drop_connections()

    def step(self, direction: str, revision: str) -> Any:  # noqa: ANN401 - Alembic exports no name for its steps
        """Return Alembic's step for a revision, with its file imported again."""
        script = self.script.get_revision(revision)
        # Each run of the alembic command imports the file again. A module may hold objects for one run only, such as a
        # MetaData that already has its tables in a second run.
        if script.path.endswith(".py"):
            script.module, self.loaded_branches = branches.load(Path(script.path))
        else:
            script.module, self.loaded_branches = load_python_file(*os.path.split(script.path)), None
        make = MigrationStep.upgrade_from_script if direction == "upgrade" else MigrationStep.downgrade_from_script
        return make(self.script.revision_map, script)

    def run_step(self, context: MigrationContext, step: Any) -> Iterator[Any]:  # noqa: ANN401
        """Have Alembic run this step, and end the transaction that it leaves open."""
        yield step
        # If the revision committed by itself, Alembic wrote the new version in a transaction that it does not end.
        connection = context.connection
        if connection is not None and connection.in_transaction() and not connection.info.get(_HELD_OPEN):
            connection.commit()

    def prepare(self, connection: sqlalchemy.Connection) -> None:
        """Check the database that env.py has connected to, and follow the connection."""
        self._check_target(connection)
        self.engines.add(connection.engine)
        self.resuming.watch(connection)

    def drop_connections(self) -> None:
        """Drop the connections of the pools."""
        for engine in self.engines:
            engine.dispose(close=False)
        self.engines.clear()

    def _check_target(self, connection: sqlalchemy.Connection) -> None:
        """Raise `RefusedError` for any database but the review's own: a review fills tables and drops them."""
        if connection.dialect.name != "postgresql":
            raise RefusedError(
                f"env.py connected to {connection.dialect.name}, not to the review's PostgreSQL: {_advice(self.job)}"
            )
        # Alembic takes a transaction that is open in configure() for env.py's own: end the one that this query begins.
        with connection.begin() if not connection.in_transaction() else nullcontext():
            found = connection.exec_driver_sql(IDENTITY).scalar_one()
        if found != self.server:
            raise RefusedError(
                f"env.py connected to database {found.split(' ')[-1]!r}, not to that of the review; no revision was"
                f" run: {_advice(self.job)}"
            )


def _set_held_open(connection: sqlalchemy.Connection, held_open: bool) -> None:  # noqa: FBT001 - the hook's signature
    connection.info[_HELD_OPEN] = held_open


def _advice(job: Job) -> str:
    names = " or ".join(job.settings.url_variables)
    return f"does it read {names}? See DATABASE_URL_ENV and DATABASE_ENV"


def described_models(models: Any) -> list[Any]:  # noqa: ANN401 - a MetaData, several or None
    """Return the tables and columns of env.py's models."""
    several = models if isinstance(models, list | tuple) else [] if models is None else [models]
    return [
        [table.key, [(column.name, type(column.type).__name__, column.nullable) for column in table.columns]]
        for each in several
        for table in each.tables.values()
    ]
