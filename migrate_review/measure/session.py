"""Measures the revisions of a tree on one database.

with reviewing(Path("back")) as session:
    for revision in session.revisions:
        observation = session.observe(revision)
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.credentials import Credentials
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.settings import read_settings
from migrate_review.driver.process import DiedError, Process, interpreter
from migrate_review.errors import ReviewError
from migrate_review.measure import catalog, server
from migrate_review.measure.outside import LocksFromOutside
from migrate_review.observation import NOT_REACHED, REFUSED_ROWS, Lock, Observation, Pass, Statement
from migrate_review.rows import contents, fill
from migrate_review.rows.plan import plan_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psycopg2.extensions import connection

    from lambda_migrate.invocation.settings import Settings
    from localcloud import postgres
    from migrate_review.driver.process import Outside
    from migrate_review.observation import Catalog
    from migrate_review.rows.plan import Plan

_ROOT = Path(__file__).resolve().parents[2]

PASS_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class LoadedRevision:
    """A revision as Alembic loaded it. ``parents`` and ``dependencies`` are full ids; ``empty`` is by direction.

    ``upgrade_texts`` are the texts in its upgrade: column names and the values that it may look for. ``inserted`` are
    the values that it inserts, each with its table.
    """

    revision: str
    description: str
    parents: tuple[str, ...]
    dependencies: tuple[str, ...]
    path: Path
    empty: Mapping[str, bool]
    upgrade_texts: str
    inserted: frozenset[tuple[str, str]]


@contextmanager
def reviewing(
    backend: Path,
    config: str = "alembic.ini",
    *,
    python: Path | None = None,
    rows: int = 300,
    on: postgres.Server | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[Session]:
    """Yield a session that measures the revisions of the tree in ``backend``.

    Args:
        backend: the folder that the alembic command runs in.
        config: alembic.ini or pyproject.toml, from there.
        python: the interpreter that env.py runs in; by default that of ``backend``'s .venv, else this one.
        rows: how many rows each table is filled up to.
        on: a server to work on; by default the reviews' own.
        environ: where DATABASE_URL_ENV, DATABASE_ENV and DB_DRIVER are read from, as the function reads them.

    Raises:
        ReviewError: the tree cannot be loaded, or env.py not be run, in one line.
        LocalCloudError: PostgreSQL could not be started.
    """
    folder = backend.resolve()
    if not (folder / config).is_file():
        raise ReviewError(f"there is no {config} in {backend}; say where the backend is")
    settings = _settings(environ, folder / config)
    with server.running(_ROOT) if on is None else nullcontext(on) as chosen, server.database(chosen) as database:
        session = Session(settings, python or interpreter(folder), rows, chosen, database)
        try:
            session.load()
            yield session
        finally:
            session.close()


def _settings(environ: Mapping[str, str], path: Path) -> Settings:
    wanted = {name: environ[name] for name in ("DATABASE_URL_ENV", "DATABASE_ENV", "DB_DRIVER") if name in environ}
    try:
        return replace(read_settings({**wanted, "STAGE": "review", "DB_SECRET_ID": "none"}), alembic_config=path)
    except ConfigurationError as error:
        raise ReviewError(str(error)) from None


@dataclass
class Session:
    """A session on one database. ``revisions`` holds the tree by id, parents first; ``heads`` have no children."""

    settings: Settings
    python: Path
    row_count: int
    server: postgres.Server
    database: postgres.Database
    revisions: dict[str, LoadedRevision] = field(default_factory=dict)
    heads: tuple[str, ...] = ()
    _process: Process | None = None
    _connection: connection | None = None
    _outside: LocksFromOutside = field(init=False)
    # What was applied when the database was last saved.
    _saved: list[str] | None = None
    # Revisions that cannot be applied, not even without rows, and why.
    _blocked: dict[str, str] = field(default_factory=dict)
    # What the database is at: every revision that is applied, in the order of their application.
    _applied: list[str] = field(default_factory=list)
    _version_table: tuple[str | None, str] = (None, "alembic_version")

    def __post_init__(self) -> None:
        self._outside = LocksFromOutside(self.database)

    def load(self) -> None:
        """Read the tree.

        Raises:
            ReviewError: a revision cannot be imported, or the tree is not one.
        """
        try:
            found = self._ask({"do": "tree"})
        except DiedError as error:
            raise ReviewError(f"the tree cannot be loaded: {error}") from None
        if not found["revisions"]:
            raise ReviewError(f"{self.settings.alembic_config} leads to no revisions; is its script_location right?")
        self.heads = tuple(found["heads"])
        for each in found["revisions"]:
            self.revisions[each["revision"]] = LoadedRevision(
                each["revision"],
                each["description"],
                tuple(each["parents"]),
                tuple(each["dependencies"]),
                Path(each["path"]),
                each["empty"],
                each["upgrade_texts"],
                frozenset((table, value) for table, value in each["inserted"]),
            )

    def close(self) -> None:
        """End the driver and the connections. The caller drops the database."""
        self._end_process()
        self._disconnect()

    def observe(self, revision: str) -> Observation:
        """Return the measurements of a revision that runs up, down and up again on its parents' schema with rows in it.

        Raises:
            ReviewError: there is no such revision, or env.py cannot be run at all.
        """
        if revision not in self.revisions:
            raise ReviewError(f"there is no revision {revision}")
        obstacle = self._reach(self._ancestors(revision))
        if obstacle is not None:
            before = catalog.read(self._connected(), self._version_table)
            return Observation(revision, {}, {}, before, Pass((), failure=obstacle))
        observation = self._observed(revision)
        state = observation.upgrade.sqlstate or ""
        if observation.upgrade.failure is not None and state.startswith(REFUSED_ROWS):
            return self._observed_with_fitting_rows(revision, observation)
        return observation

    def drift(self) -> tuple[str, ...]:
        """Return what ``alembic check`` finds: the differences between models and database, one line each.

        Raises:
            ReviewError: the revisions do not lead to head, or env.py gives no models.
        """
        obstacle = self._reach(self._order())
        if obstacle is not None:
            raise ReviewError(f"the models cannot be compared: {obstacle}")
        try:
            return tuple(self._ask({"do": "drift"})["differences"])
        except DiedError as error:
            self._end_process()
            raise ReviewError(f"the models cannot be compared: {error}") from None

    # --- one revision ---

    def _observed(self, revision: str, plan: Plan | None = None) -> Observation:
        # Kept whole: the steps of one measurement in their order, each of which may end it.
        opened = self._connected()
        texts = fill.RevisionTexts(
            tuple(each.upgrade_texts for each in self.revisions.values()),
            frozenset().union(*(each.inserted for each in self.revisions.values())),
        )
        unfilled = fill.fill(opened, self.row_count, self._version_table, plan, texts)
        if plan is None and self._has_siblings(revision) and self._saved != self._applied:
            self._save()
            opened = self._connected()
        before = catalog.read(opened, self._version_table)
        data = contents.read(opened, before)
        counts = {name: len(each.rows) for name, each in data.items()} | contents.counts(
            opened, [table.name for table in before.tables if table.name not in data]
        )
        seen = Observation(revision, counts, unfilled, before, self._pass("upgrade", revision, before, counts))
        if seen.upgrade.failure is not None:
            self._start_over()
            return seen
        after = self._read()
        seen = replace(seen, after=after)
        seen = replace(seen, downgrade=self._pass("downgrade", revision, after, counts))
        if seen.downgrade is None or seen.downgrade.failure is not None:
            self._start_over()
            return seen
        restored = self._read()
        seen = replace(
            seen, restored=restored, changes=contents.changes(data, contents.read(self._connected(), restored))
        )
        seen = replace(seen, upgrade_again=self._pass("upgrade", revision, restored, counts))
        if seen.upgrade_again is None or seen.upgrade_again.failure is not None:
            self._start_over()
            return seen
        return replace(seen, again=self._read())

    def _observed_with_fitting_rows(self, revision: str, refused: Observation) -> Observation:
        """Return the measurements of a revision that refused rows, with rows that it accepts.

        The schema after it, read after a run on empty tables, shows which rows it accepts.
        """
        obstacle = self._reach(self._ancestors(revision))
        before = self._read()
        if obstacle is not None or "failure" in self._apply([revision]):
            self._start_over()
            return refused
        after = self._read()
        self._start_over()
        if self._reach(self._ancestors(revision)) is not None:
            return refused
        fitting = self._observed(revision, plan_rows(before, after))
        return replace(fitting, refused=refused.upgrade)

    def _read(self) -> Catalog:
        return catalog.read(self._connected(), self._version_table)

    def _pass(self, direction: str, revision: str, before: Catalog, counts: Mapping[str, int]) -> Pass:
        empty = self.revisions[revision].empty[direction]
        tables = {table.oid: table.name for table in before.tables}
        command = {
            "do": "step",
            "direction": direction,
            "revision": revision,
            "tables": tables,
            "rows": {oid: counts.get(name, 0) for oid, name in tables.items()},
        }
        try:
            self._outside.tables = list(tables.values())
            found = self._ask(command, self._outside)
        except DiedError as error:
            self._end_process()
            return Pass((), failure=str(error), empty=empty)
        failure = found["failure"] or {}
        text = failure.get("text")
        if text is None:
            self._note(found)
            there = revision in self._versions()
            if direction == "downgrade":
                self._applied.remove(revision)
            else:
                self._applied.append(revision)
            if there != (direction == "upgrade"):
                text = "env.py did not commit it: the version table is as it was before"
        return Pass(
            statements=tuple(_statement(each) for each in found["statements"]),
            failure=text,
            failed_sql=failure.get("sql"),
            sqlstate=failure.get("sqlstate"),
            empty=empty,
        )

    def _versions(self) -> set[str]:
        schema, name = self._version_table
        with self._connected().cursor() as cursor:
            table = ".".join(contents.quoted(each) for each in (schema or "public", name))
            cursor.execute(f"SELECT version_num FROM {table}")  # noqa: S608 - quoted names
            return {version for (version,) in cursor.fetchall()}

    # --- where the database is ---

    def _ancestors(self, revision: str) -> list[str]:
        """Return the revisions that must be applied before this one, parents first."""
        wanted: set[str] = set()
        left = [revision]
        while left:
            each = self.revisions[left.pop()]
            new = {*each.parents, *each.dependencies} - wanted
            wanted |= new
            left.extend(new)
        return [each for each in self._order() if each in wanted]

    def _order(self) -> list[str]:
        """Return all revisions, parents and dependencies first. Alembic's walk orders by parents only."""
        ordered: dict[str, None] = {}

        def visit(revision: str) -> None:
            stack = [(revision, False)]
            while stack:
                current, ready = stack.pop()
                if current in ordered:
                    continue
                if ready:
                    ordered[current] = None
                    continue
                stack.append((current, True))
                each = self.revisions[current]
                stack.extend((parent, False) for parent in (*each.dependencies, *each.parents))

        for revision in self.revisions:
            visit(revision)
        return list(ordered)

    def _reach(self, wanted: Sequence[str]) -> str | None:
        """Bring the database to a state in which exactly these revisions are applied.

        Another branch may have made what this one makes, or taken away what it needs.

        Returns:
            What is in the way, None if nothing is.
        """
        if not set(self._applied) <= set(wanted):
            self._start_over(wanted)
        while missing := [each for each in wanted if each not in self._applied]:
            blocked = next((each for each in missing if each in self._blocked), None)
            if blocked is not None:
                return f"{NOT_REACHED} revision {blocked}, which comes before it, fails: {self._blocked[blocked]}"
            had_rows = bool(self._applied)
            found = self._apply(missing)
            if "failure" in found:
                if not had_rows:
                    culprit = missing[min(len(found["applied"]), len(missing) - 1)]
                    self._blocked[culprit] = found["failure"]["text"]
                self._start_over()
        return None

    def _apply(self, revisions: Sequence[str]) -> dict[str, Any]:
        try:
            found = self._ask({"do": "apply", "revisions": list(revisions)})
        except DiedError as error:
            began = [each for each in self._process.began if each] if self._process is not None else []
            self._end_process()
            return {"applied": began[:-1], "failure": {"text": str(error)}}
        self._note(found)
        self._applied.extend(found["applied"])
        return found

    def _start_over(self, wanted: Sequence[str] | None = None) -> None:
        """Make the database empty, or restore the saved copy if it has the wanted revisions applied."""
        self._disconnect()
        if wanted is not None and self._saved == list(wanted):
            server.make_anew(self.server, self.database.name, server.saved(self.database.name))
            self._applied = list(wanted)
        else:
            server.make_anew(self.server, self.database.name)
            self._applied.clear()
        if self._process is not None:
            self._ask({"do": "forget"})

    def _has_siblings(self, revision: str) -> bool:
        """Return whether other revisions have the same parents, and will need the database as it is now."""
        own = self.revisions[revision]
        return any(
            (each.parents, each.dependencies) == (own.parents, own.dependencies)
            for each in self.revisions.values()
            if each is not own
        )

    def _save(self) -> None:
        """Keep a copy of the database as it is."""
        self._disconnect()
        server.make_anew(self.server, server.saved(self.database.name), self.database.name)
        self._saved = list(self._applied)
        if self._process is not None:
            self._ask({"do": "forget"})

    def _note(self, found: Mapping[str, Any]) -> None:
        schema, name = found.get("version_table", self._version_table)
        self._version_table = (schema, name)

    # --- the process and the connection ---

    def _ask(self, command: Mapping[str, Any], outside: Outside | None = None) -> dict[str, Any]:
        if self._process is None:
            self._process = Process(self.python, self._start())
        return self._process.ask(command, PASS_TIMEOUT_S, outside)

    def _start(self) -> dict[str, Any]:
        database = self.database
        credentials = Credentials(
            database.host, database.port, database.name, database.user, database.password, "verify-full", database.ca
        )
        with self._connected().cursor() as cursor:
            cursor.execute("SELECT pg_postmaster_start_time()::text || ' ' || current_database()")
            [(identity,)] = cursor.fetchall()
        return {
            "config": str(self.settings.alembic_config),
            "driver": self.settings.driver,
            "url_variables": self.settings.url_variables,
            "env_variables": dict(self.settings.env_variables),
            "credentials": {**asdict(credentials), "sslrootcert": str(database.ca)},
            "server": identity,
            "pass_timeout_s": PASS_TIMEOUT_S,
        }

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def _connected(self) -> connection:
        if self._connection is None:
            self._connection = self.database.connect()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._outside.close()


def _statement(found: Mapping[str, Any]) -> Statement:
    return Statement(
        sql=found["sql"],
        duration_ms=found["duration_ms"],
        in_transaction=found["in_transaction"],
        locks=tuple(Lock(table, mode) for table, mode in found["locks"]),
        scanned=tuple(found["scanned"]),
        rewritten=tuple(found["rewritten"]),
    )
