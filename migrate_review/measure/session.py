"""Measures the revisions of a tree on one database.

with reviewing(Path("back")) as session:
    for revision in session.revisions:
        observation = session.observe(revision)
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.settings import read_settings
from localcloud import binaries
from migrate_review.driver.interpreters import interpreter
from migrate_review.driver.process import DiedError, Process
from migrate_review.errors import ReviewError
from migrate_review.measure import baseline, roles, server
from migrate_review.measure.connections import Connections
from migrate_review.measure.kept import Kept
from migrate_review.measure.loaded import loaded
from migrate_review.measure.measurement import Measurement
from migrate_review.measure.position import Position
from migrate_review.revisions.tree import working_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from psycopg2.extensions import connection

    from lambda_migrate.invocation.settings import Settings
    from localcloud import postgres
    from migrate_review.measure.loaded import LoadedRevision
    from migrate_review.measure.roles import Roles
    from migrate_review.observation import Observation

_ROOT = Path(__file__).resolve().parents[2]

# The function's settings for env.py's address and arguments.
_SETTINGS = ("DATABASE_URL_ENV", "DATABASE_ENV", "DB_DRIVER", "ALEMBIC_X")


@dataclass(frozen=True)
class Where:
    """The server of a review, and the content of its database before the first revision.

    ``version`` is PostgreSQL's major version. ``url`` is the address of the user's own server, instead of the review's.
    ``baseline`` is a schema dump. Without one, the review uses a ``baseline.sql`` beside alembic.ini.
    """

    version: int = binaries.DEFAULT_VERSION
    url: str | None = None
    baseline: Path | None = None

    def server(self) -> AbstractContextManager[postgres.Server]:
        """Return the running server."""
        return server.running(_ROOT, self.version) if self.url is None else server.given(_ROOT, self.url)


@contextmanager
def reviewing(  # noqa: PLR0913 - a review's settings
    backend: Path,
    config: str = "alembic.ini",
    *,
    python: Path | None = None,
    rows: int = 300,
    on: postgres.Server | None = None,
    where: Where = Where(),
    variables: Mapping[str, str] | None = None,
    record: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[Session]:
    """Yield a session that measures the revisions of the tree in ``backend``.

    Args:
        backend: the folder that the alembic command runs in.
        config: alembic.ini or pyproject.toml, relative to ``backend``.
        python: the interpreter for env.py; by default that of ``backend``'s .venv, or else this one.
        rows: the number of rows in each table.
        on: a running server, instead of that of ``where``.
        where: the server, and the schema before the first revision.
        variables: environment variables that the function has in a stage. Those of ``environ`` override them.
        record: whether to read the digests of the schema before and after each revision.
        progress: a function that gets a few words before a step that may take seconds.
        environ: the environment with DATABASE_URL_ENV, DATABASE_ENV, DB_DRIVER and ALEMBIC_X.

    Raises:
        ReviewError: the tree cannot be loaded, or env.py cannot be run.
        LocalCloudError: PostgreSQL could not be started.
    """
    folder = backend.resolve()
    variables = variables or {}
    settings = settings_of(backend, config, variables, environ)
    interpreted_by = python or interpreter(folder)
    with (
        # It imports Alembic while the server starts.
        closing(Process(interpreted_by, variables)) as driver,
        where.server() if on is None else nullcontext(on) as chosen,
        server.database(chosen) as database,
    ):
        session = Session(
            settings=settings,
            folder=working_folder(folder, settings.alembic_config),
            python=interpreted_by,
            driver=driver,
            row_count=rows,
            server=chosen,
            database=database,
            variables=variables,
            baseline=where.baseline,
            record=record,
            keeps=where.url is None,  # on the user's own server, the review leaves nothing
            progress=progress,
        )
        try:
            session.load()
            yield session
        finally:
            session.close()


def settings_of(
    backend: Path, config: str, variables: Mapping[str, str], environ: Mapping[str, str] = os.environ
) -> Settings:
    """Return the settings for running env.py. Those of ``environ`` override a stage's ``variables``.

    Raises:
        ReviewError: there is no such configuration, or a setting is wrong.
    """
    folder = backend.resolve()
    if not (folder / config).is_file():
        raise ReviewError(f"there is no {config} in {backend}; pass the backend's folder as --backend")
    return _settings({**variables, **environ}, folder / config)


def _settings(environ: Mapping[str, str], path: Path) -> Settings:
    wanted = {name: environ[name] for name in _SETTINGS if name in environ}
    try:
        return replace(read_settings({**wanted, "STAGE": "review", "DB_SECRET_ID": "none"}), alembic_config=path)
    except ConfigurationError as error:
        raise ReviewError(str(error)) from None


@dataclass
class Session:
    """A session on one database.

    ``folder`` is the one in which the alembic command runs. ``driver`` is the first process of the driver.
    """

    settings: Settings
    folder: Path
    python: Path
    driver: Process
    row_count: int
    server: postgres.Server
    database: postgres.Database
    variables: Mapping[str, str] = field(default_factory=dict)
    baseline: Path | None = None
    record: bool = False
    keeps: bool = True
    progress: Callable[[str], None] = lambda _: None
    _connections: Connections = field(init=False)
    _position: Position = field(init=False)
    _measurement: Measurement = field(init=False)
    _roles: Roles | None = None
    # A connection to the server's own database, which creates and drops the review's database.
    _admin: connection = field(init=False)

    def __post_init__(self) -> None:
        self._connections = Connections(
            self.settings, self.folder, self.python, self.database, self.variables, self.driver
        )
        self._admin = self.server.connect()

    @property
    def revisions(self) -> Mapping[str, LoadedRevision]:
        """The tree by id, parents first."""
        return self._position.tree.revisions

    @property
    def heads(self) -> tuple[str, ...]:
        """The revisions that have no children."""
        return self._position.tree.heads

    def load(self) -> None:
        """Read the tree.

        Raises:
            ReviewError: a revision cannot be imported, there is none, or the baseline is of another tree.
        """
        file = self.baseline or self.settings.alembic_config.parent / baseline.FILE
        begins = self.baseline is not None or file.is_file()
        dump = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        others = frozenset() if self.keeps else roles.existing(self.server)
        self._roles = self._created_roles([dump], others)
        if begins:
            baseline.load(self.database, file)
            server.recreate(self._admin, server.baseline(self.database.name), self.database.name)
        self.progress("loading the revisions")
        try:
            found = self._connections.execute({"do": "tree"})
        except DiedError as error:
            raise ReviewError(f"the tree cannot be loaded: {error}") from None
        if not found["revisions"]:
            raise ReviewError(f"{self.settings.alembic_config} leads to no revisions; is its script_location right?")
        tree = loaded(found)
        sources = [dump, *(each.source() for each in tree.revisions.values())]
        self._roles = self._created_roles(sources, others, drop=not begins)
        given = None
        if begins:
            versions = self._connections.versions()
            if unknown := sorted(versions - tree.revisions.keys()):
                raise ReviewError(
                    f"the baseline {file} is at {', '.join(unknown)}, which is no revision of this tree; make it from a"
                    " database that this tree migrates"
                )
            given = tree.with_ancestors(versions)
        self._position = Position(
            self._admin,
            self.database,
            self._connections,
            tree,
            self.progress,
            # A kept database does not contain roles, because they belong to the server.
            kept=self._kept_states(found["versions"], file if begins else None)
            if self.keeps and self._roles is None
            else None,
            roles=self._roles,
            begins_with=given,
            applied=list(given or ()),
        )
        self._measurement = Measurement(self._position, self.row_count, self.record)

    def _created_roles(self, texts: Sequence[str], others: frozenset[str], *, drop: bool = True) -> Roles | None:
        """Return the roles that these files create. With ``drop``, drop those that a killed review has left."""
        created = roles.created_by(texts, self.server, others)
        if created is not None and drop:
            created.drop()
        return created

    def _kept_states(self, versions: Mapping[str, str], begins: Path | None) -> Kept:
        folder = self.folder
        tree = (path for path in sorted(folder.rglob("env.py")) if ".venv" not in path.parts)
        with self._connections.opened().cursor() as cursor:
            cursor.execute("SELECT version()")
            server_version = cursor.fetchall()
        setting = {
            "versions": dict(versions),
            "server": server_version,
            "config": self.settings.alembic_config.read_text(encoding="utf-8", errors="replace"),
            "env_py": [path.read_text(encoding="utf-8", errors="replace") for path in tree],
            "baseline": begins.read_text(encoding="utf-8", errors="replace") if begins is not None else None,
            "variables": dict(self.variables),
            "start": [self.settings.driver, self.settings.url_variables, dict(self.settings.env_variables)],
            "x": dict(self.settings.x_arguments),
        }
        return Kept(self._admin, self.server.directory, folder, setting)

    def close(self) -> None:
        """End the driver and the connections. The caller drops the database."""
        self._connections.close()
        self._admin.close()
        if self._roles is not None:
            server.drop(self.server, self.database.name)
            self._roles.drop()

    def observe(self, revision: str) -> Observation:
        """Return the measurements of a revision. It runs up, down and up again, on its parents' schema with rows.

        Raises:
            ReviewError: there is no such revision, or env.py cannot be run at all.
        """
        if revision not in self.revisions:
            raise ReviewError(f"there is no revision {revision}")
        return self._measurement.observe(revision)

    def drift(self) -> tuple[str, ...]:
        """Return the differences between models and database that ``alembic check`` finds, one line each.

        Raises:
            ReviewError: the revisions do not lead to head, or env.py gives no models.
        """
        obstacle = self._position.reach(self._position.tree.order())
        if obstacle is not None:
            raise ReviewError(f"the models cannot be compared: {obstacle}")
        try:
            found = self._connections.execute({"do": "drift"})
            if found["changed"]:
                # `alembic check` runs no revision. Revisions may leave tables in the models' MetaData.
                self._connections.end_process()
                found = self._connections.execute({"do": "drift"})
            return tuple(found["differences"])
        except DiedError as error:
            self._connections.end_process()
            raise ReviewError(f"the models cannot be compared: {error}") from None
