"""Measures the revisions of a tree on one database.

with reviewing(Path("back")) as session:
    for revision in session.revisions:
        observation = session.observe(revision)
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.credentials import Credentials
from lambda_migrate.database.schema import read_schema
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.settings import read_settings
from localcloud import binaries
from migrate_review.driver.interpreters import interpreter
from migrate_review.driver.process import DiedError, Process
from migrate_review.errors import EnvPyError, ReviewError
from migrate_review.measure import access, baseline, catalog, needs, scope, server, wider
from migrate_review.measure.kept import Kept
from migrate_review.measure.outside import LocksFromOutside
from migrate_review.measure.writes import Trial
from migrate_review.observation import REFUSED_ROWS, Lock, Observation, Pass, Statement
from migrate_review.rows import contents, fill
from migrate_review.rows.plan import plan_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from psycopg2.extensions import connection

    from lambda_migrate.invocation.settings import Settings
    from localcloud import postgres
    from migrate_review.driver.process import Outside
    from migrate_review.measure.scope import Scope
    from migrate_review.observation import Catalog
    from migrate_review.rows.plan import Plan

_ROOT = Path(__file__).resolve().parents[2]

PASS_TIMEOUT_S = 60.0

# A revision is stopped at so many places at most.
_MOST_RERUNS = 6

# Copying a database takes some 0.3 s.
_WORTH_KEEPING_S = 0.5

# The settings of the function that say how env.py gets its address and arguments.
_SETTINGS = ("DATABASE_URL_ENV", "DATABASE_ENV", "DB_DRIVER", "ALEMBIC_X")


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


@dataclass(frozen=True)
class Where:
    """The server that a review works on, and what its database holds before the first revision.

    ``version`` is PostgreSQL's major version; ``url`` leads to a server of the user's own instead. ``baseline`` is a
    schema dump; without one, a ``baseline.sql`` beside alembic.ini is used.
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
        config: alembic.ini or pyproject.toml, from there.
        python: the interpreter that env.py runs in; by default that of ``backend``'s .venv, else this one.
        rows: how many rows each table is filled up to.
        on: a running server to work on, instead of that of ``where``.
        where: the server to work on, and the schema that the history begins with.
        variables: environment variables that the function has in a stage. Those of ``environ`` come before them.
        record: whether to read the digests of the schema before and after each revision.
        progress: is called with a few words before a step that may take seconds.
        environ: where DATABASE_URL_ENV, DATABASE_ENV, DB_DRIVER and ALEMBIC_X are read from, as the function does.

    Raises:
        ReviewError: the tree cannot be loaded, or env.py not be run, in one line.
        LocalCloudError: PostgreSQL could not be started.
    """
    folder = backend.resolve()
    if not (folder / config).is_file():
        raise ReviewError(f"there is no {config} in {backend}; say where the backend is")
    variables = variables or {}
    settings = _settings({**variables, **environ}, folder / config)
    with where.server() if on is None else nullcontext(on) as chosen, server.database(chosen) as database:
        session = Session(
            settings=settings,
            python=python or interpreter(folder),
            row_count=rows,
            server=chosen,
            database=database,
            variables=variables,
            baseline=where.baseline,
            record=record,
            keeps=where.url is None,  # on a server of the user's own, nothing stays
            progress=progress,
        )
        try:
            session.load()
            yield session
        finally:
            session.close()


def _settings(environ: Mapping[str, str], path: Path) -> Settings:
    wanted = {name: environ[name] for name in _SETTINGS if name in environ}
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
    variables: Mapping[str, str] = field(default_factory=dict)
    baseline: Path | None = None
    record: bool = False
    keeps: bool = True
    progress: Callable[[str], None] = lambda _: None
    revisions: dict[str, LoadedRevision] = field(default_factory=dict)
    heads: tuple[str, ...] = ()
    _process: Process | None = None
    _connection: connection | None = None
    _outside: LocksFromOutside = field(init=False)
    # What was applied when the database was last saved.
    _saved: list[str] | None = None
    # The revisions that the baseline's version table names, with those before them; None if there is no baseline.
    _begins_with: list[str] | None = None
    _kept: Kept | None = None
    # Revisions that cannot be applied, not even without rows, and why.
    _blocked: dict[str, str] = field(default_factory=dict)
    # What the database is at: every revision that is applied, in the order of their application.
    _applied: list[str] = field(default_factory=list)
    _scopes: dict[str, Scope] = field(default_factory=dict)
    # The name under which the state with rows is to be kept.
    _filled: str | None = None
    _version_table: tuple[str | None, str] = (None, "alembic_version")

    def __post_init__(self) -> None:
        self._outside = LocksFromOutside(self.database)

    def load(self) -> None:
        """Read the tree.

        Raises:
            ReviewError: a revision cannot be imported, or the tree is not one.
        """
        file = self.baseline or self.settings.alembic_config.parent / baseline.FILE
        if self.baseline is not None or file.is_file():
            self._load_baseline(file)
        self.progress("loading the revisions")
        try:
            found = self._ask({"do": "tree"})
        except DiedError as error:
            raise ReviewError(f"the tree cannot be loaded: {error}") from None
        self._note(found)
        if self.keeps:
            self._kept = self._kept_states(found["versions"], file)
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
        if self._begins_with is not None:
            self._begins_with = self._with_ancestors(self._versions())
            self._applied = list(self._begins_with)

    def _kept_states(self, versions: Mapping[str, str], file: Path) -> Kept:
        folder = self.settings.alembic_config.parent
        tree = (path for path in sorted(folder.rglob("env.py")) if ".venv" not in path.parts)
        with self._connected().cursor() as cursor:
            cursor.execute("SELECT version()")
            server_version = cursor.fetchall()
        setting = {
            "versions": dict(versions),
            "server": server_version,
            "config": self.settings.alembic_config.read_text(encoding="utf-8", errors="replace"),
            "env_py": [path.read_text(encoding="utf-8", errors="replace") for path in tree],
            "baseline": file.read_text(encoding="utf-8", errors="replace") if self._begins_with is not None else None,
            "variables": dict(self.variables),
            "start": [self.settings.driver, self.settings.url_variables, dict(self.settings.env_variables)],
            "x": dict(self.settings.x_arguments),
        }
        return Kept(self.server, folder, setting)

    def _load_baseline(self, file: Path) -> None:
        """Load the schema that the history begins with, and keep a copy of it."""
        baseline.load(self.database, file)
        server.make_anew(self.server, server.baseline(self.database.name), self.database.name)
        self._begins_with = []

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
        if revision in (self._begins_with or ()):
            return self._not_run(revision, "the baseline holds it already, so that it does not run")
        ancestors = self._ancestors(revision)
        self._filled = self._kept_rows(revision) if self._applied != ancestors else None
        obstacle = None if self._begin_with_rows(ancestors) else self._reach(ancestors)
        if obstacle is not None:
            return self._not_run(revision, obstacle)
        observation = self._observed_with_all_that_it_touches(revision)
        if _refused_rows(observation):
            observation = self._observed_with_other_rows(revision, observation)
        failure = observation.upgrade.failure
        if failure is not None and (lacking := self._lacking(revision, failure, observation.before)) is not None:
            self._blocked[revision] = lacking
            return self._not_run(revision, lacking)
        return replace(observation, unmeasured=(*observation.unmeasured, *_without_rows(observation)))

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

    def _observed_with_all_that_it_touches(self, revision: str) -> Observation:
        """Return the measurements with rows in every table that the revision touches."""
        scope = self._scope(revision)
        observation = self._observed(revision)
        if missed := scope.missed(observation):
            self._scopes[revision] = scope.with_tables(missed)
            self._start_over(self._ancestors(revision))
            if self._reach(self._ancestors(revision)) is None:
                observation = self._observed(revision)
        return observation

    def _kept_rows(self, revision: str) -> str | None:
        """Return the name of the state before a revision with rows, None if nothing is kept."""
        if self._kept is None:
            return None
        return self._kept.with_rows(f"{revision} {self.row_count}", [each.path for each in self.revisions.values()])

    def _begin_with_rows(self, ancestors: Sequence[str]) -> bool:
        """Begin at the state with rows that an earlier review kept. Return whether there is one."""
        if self._kept is None or self._filled is None or not self._kept.has(self._filled):
            return False
        self._disconnect()
        server.make_anew(self.server, self.database.name, self._filled)
        self._applied = list(ancestors)
        self._filled = None  # it need not be kept again
        self._ask({"do": "forget"})
        return True

    def _keep_rows(self) -> None:
        """Keep the state with its rows for the next review, if this one had to make it."""
        if self._kept is not None and self._filled is not None:
            self._disconnect()
            self._kept.keep_as(self._filled, self.database.name)
            self._ask({"do": "forget"})

    def _scope(self, revision: str) -> Scope:
        if revision not in self._scopes:
            text = self.revisions[revision].path.read_text(encoding="utf-8", errors="replace")
            self._scopes[revision] = scope.guess(self._connected(), text)
        return self._scopes[revision]

    def _lacking(self, revision: str, failure: str, before: Catalog) -> str | None:
        """Return what the server or the database lacks for a revision that failed, None if it is at fault itself."""
        ancestors = self._ancestors(revision)
        earlier = (
            self.revisions[each].path.read_text(encoding="utf-8", errors="replace")
            for each in ancestors
            if each not in (self._begins_with or ())
        )
        return needs.lacking(failure, before, earlier)

    def _not_run(self, revision: str, reason: str) -> Observation:
        """Return the SQL of a revision that cannot run here, as far as it can be rendered."""
        before = self._read()
        try:
            statements = self._ask({"do": "render", "revision": revision})["statements"]
        except DiedError:
            self._end_process()
            statements = []
        rendered = Pass(
            tuple(_statement(each) for each in statements),
            failure=reason,
            empty=self.revisions[revision].empty["upgrade"],
            rendered=True,
        )
        return Observation(revision, {}, {}, before, rendered, unmeasured=(reason,))

    def _observed_with_other_rows(self, revision: str, refused: Observation) -> Observation:
        """Return the measurements of a revision that refused rows, with fitting ones, one a table, or none."""
        observation = self._observed_with_fitting_rows(revision, refused)
        for count in (1, 0):
            if not _refused_rows(observation) or self._reach(self._ancestors(revision)) is not None:
                break
            tried = self._observed(revision, count=count)
            if not _refused_rows(tried):
                observation = replace(tried, refused=refused.upgrade)
                if not count:
                    observation = _without_any_rows(observation)
        return observation

    def _observed(self, revision: str, plan: Plan | None = None, *, count: int | None = None) -> Observation:
        # Kept whole: the steps of one measurement in their order, each of which may end it.
        opened = self._connected()
        texts = fill.RevisionTexts(
            tuple(each.upgrade_texts for each in self.revisions.values()),
            frozenset().union(*(each.inserted for each in self.revisions.values())),
        )
        wanted = self.row_count if count is None else count
        only = self._scope(revision).tables
        began = time.monotonic()
        unfilled = fill.fill(opened, wanted, self._version_table, plan, texts, only)
        if not unfilled and plan is None and count is None and time.monotonic() - began > _WORTH_KEEPING_S:
            self._keep_rows()
            opened = self._connected()
        if plan is None and count is None and self._has_siblings(revision) and self._saved != self._applied:
            self._save()
            opened = self._connected()
        before = catalog.read(opened, self._version_table)
        data = contents.read(opened, before)
        counts = {name: len(each.rows) for name, each in data.items()} | contents.counts(
            opened,
            [
                *(table.name for table in before.tables if table.name not in data),
                *(view.name for view in before.materialized if view.populated),
            ],
        )
        standing = access.read(opened)
        digests = self._digests()
        seen = Observation(
            revision,
            counts,
            unfilled,
            before,
            self._pass("upgrade", revision, before, counts),
            schema_before=digests,
        )
        if seen.upgrade.failure is not None:
            self._start_over()
            return seen
        after = self._read()
        digests = self._digests()
        seen = replace(
            seen,
            rows=counts | _under_new_names(counts, before, after),
            after=after,
            schema_after=digests,
            access_before=standing,
            access_after=access.read(self._connected()),
            writes=Trial(self._connected(), before, after, data, counts).changed_writes(),
        )
        counts = dict(seen.rows)
        seen = replace(seen, downgrade=self._pass("downgrade", revision, after, counts))
        if seen.downgrade is None or seen.downgrade.failure is not None:
            self._start_over()
            return seen
        restored = self._read()
        if seen.writes and not catalog.differences(before, restored):
            # It is the schema from before: what it does, too, the revision did not change.
            always = Trial(self._connected(), after, restored, data, counts).changed_writes()
            known = {(write.table, write.kind, write.sqlstate) for write in always}
            changed = (write for write in seen.writes if (write.table, write.kind, write.sqlstate) not in known)
            seen = replace(seen, writes=tuple(changed))
        seen = replace(
            seen, restored=restored, changes=contents.changes(data, contents.read(self._connected(), restored))
        )
        seen = replace(seen, upgrade_again=self._pass("upgrade", revision, restored, counts))
        if seen.upgrade_again is None or seen.upgrade_again.failure is not None:
            self._start_over()
            return seen
        return self._run_again(self._with_values_of_the_new_schema(replace(seen, again=self._read())))

    def _run_again(self, seen: Observation) -> Observation:
        """Stop the revision wherever it has committed some of its work, and run it again as the runner does."""
        places = _stops(seen.upgrade.statements)
        if not places or seen.revision not in self._applied:
            return seen
        reruns: list[tuple[int, Pass]] = []
        for place in places[:_MOST_RERUNS]:
            down = self._pass("downgrade", seen.revision, self._read(), seen.rows)
            if down.failure is not None or not self._stopped(seen.revision, place):
                self._start_over()
                break
            again = self._pass("upgrade", seen.revision, self._read(), seen.rows)
            reruns.append((place, again))
            if again.failure is not None:
                self._start_over()
                break
        return replace(seen, reruns=tuple(reruns) or None)

    def _stopped(self, revision: str, before: int) -> bool:
        try:
            return bool(self._ask({"do": "stop", "revision": revision, "before": before})["stopped"])
        except DiedError:
            self._end_process()
            return False

    def _with_values_of_the_new_schema(self, seen: Observation) -> Observation:
        """Return the observation with a downgrade that failed on values which only the new schema allows."""
        if seen.again is None or not wider.use_what_is_new(self._connected(), seen.before, seen.again):
            return seen
        refused = self._pass("downgrade", seen.revision, seen.again, seen.rows)
        if refused.failure is None:
            again = self._pass("upgrade", seen.revision, self._read(), seen.rows)
            if again.failure is None:
                return seen
        self._start_over()
        state = refused.sqlstate or ""
        return replace(seen, downgrade_refused=refused) if state.startswith(REFUSED_ROWS) else seen

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

    def _digests(self) -> Mapping[str, str] | None:
        if not self.record:
            return None
        return read_schema(self._connected(), version_table=self._version_table[1]).objects

    def _read(self) -> Catalog:
        return catalog.read(self._connected(), self._version_table)

    def _pass(self, direction: str, revision: str, before: Catalog, counts: Mapping[str, int]) -> Pass:
        empty = self.revisions[revision].empty[direction]
        tables = {table.oid: table.name for table in before.tables}
        tables |= {view.oid: view.name for view in before.materialized}
        command = {
            "do": "step",
            "direction": direction,
            "revision": revision,
            "tables": tables,
            "rows": {oid: counts.get(name, 0) for oid, name in tables.items()},
        }
        try:
            self._outside.tables = [table.name for table in before.tables]
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
            idle_ms=found["idle_ms"],
        )

    def _versions(self) -> set[str]:
        schema, name = self._version_table
        with self._connected().cursor() as cursor:
            table = ".".join(contents.quoted(each) for each in (schema or "public", name))
            cursor.execute("SELECT to_regclass(%s) IS NULL", (table,))
            if cursor.fetchone() == (True,):
                return set()
            cursor.execute(f"SELECT version_num FROM {table}")  # noqa: S608 - quoted names
            return {version for (version,) in cursor.fetchall()}

    # --- where the database is ---

    def _with_ancestors(self, revisions: Iterable[str]) -> list[str]:
        """Return these revisions and those that must be applied before them, parents first."""
        several = [revision for revision in revisions if revision in self.revisions]
        wanted = {*several, *(each for revision in several for each in self._ancestors(revision))}
        return [each for each in self._order() if each in wanted]

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
        given = self._begins_with or []
        if not set(given) <= set(wanted):
            return f"the baseline is at {given[-1]}, which comes after what this revision builds on"
        if not set(self._applied) <= set(wanted):
            self._start_over(wanted)
        elif set(self._applied) == set(given) and self._kept_state(wanted) is not None:
            self._start_over(wanted, with_rows=False)
        while missing := [each for each in wanted if each not in self._applied]:
            blocked = next((each for each in missing if each in self._blocked), None)
            if blocked is not None:
                return f"revision {blocked}, which comes before it, does not run: {self._blocked[blocked]}"
            had_rows = set(self._applied) != set(given)
            began = time.monotonic()
            self.progress(f"applying {len(missing)} revisions that come before")
            found = self._apply(missing)
            if "failure" in found:
                if not had_rows:
                    culprit = missing[min(len(found["applied"]), len(missing) - 1)]
                    text = found["failure"]["text"]
                    self._blocked[culprit] = self._lacking(culprit, text, self._read()) or text
                self._start_over()
            elif not had_rows and time.monotonic() - began > _WORTH_KEEPING_S:
                self._keep(wanted)
        return None

    def _kept_state(self, wanted: Sequence[str]) -> tuple[int, str] | None:
        """Return how many of these revisions a database from an earlier review has, and its name."""
        if self._kept is None or not wanted:
            return None
        return self._kept.find(self._files(wanted))

    def _keep(self, wanted: Sequence[str]) -> None:
        """Keep a copy of the state for the next review."""
        if self._kept is not None:
            self._disconnect()
            self._kept.keep(self._files(wanted), self.database.name)
            self._ask({"do": "forget"})

    def _files(self, revisions: Sequence[str]) -> list[Path]:
        return [self.revisions[each].path for each in revisions]

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

    def _start_over(self, wanted: Sequence[str] | None = None, *, with_rows: bool = True) -> None:
        """Make the database empty, or restore a copy in which wanted revisions are applied, from the first one on.

        The copy that this review saved has rows, too. The one that an earlier review kept has none.
        """
        self._disconnect()
        if wanted is not None and with_rows and self._saved == list(wanted):
            server.make_anew(self.server, self.database.name, server.saved(self.database.name))
            self._applied = list(wanted)
        elif wanted is not None and (kept := self._kept_state(wanted)) is not None:
            count, name = kept
            server.make_anew(self.server, self.database.name, name)
            self._applied = list(wanted[:count])
        elif self._begins_with is not None:
            server.make_anew(self.server, self.database.name, server.baseline(self.database.name))
            self._applied = list(self._begins_with)
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
        process = self._running()
        first = not process.used
        try:
            return process.ask(command, PASS_TIMEOUT_S, outside)
        except EnvPyError:
            if first:
                raise
        # The alembic command runs env.py once in a process. What that left in modules may be in the way.
        self._end_process()
        return self._running().ask(command, PASS_TIMEOUT_S, outside)

    def _running(self) -> Process:
        if self._process is None:
            self._process = Process(self.python, self._start(), self.variables)
        return self._process

    def _start(self) -> dict[str, Any]:
        database = self.database
        credentials = Credentials(
            database.host, database.port, database.name, database.user, database.password, database.sslmode, database.ca
        )
        with self._connected().cursor() as cursor:
            cursor.execute("SELECT pg_postmaster_start_time()::text || ' ' || current_database()")
            [(identity,)] = cursor.fetchall()
        return {
            "config": str(self.settings.alembic_config),
            "driver": self.settings.driver,
            "url_variables": self.settings.url_variables,
            "env_variables": dict(self.settings.env_variables),
            "x_arguments": dict(self.settings.x_arguments),
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


def _stops(statements: Sequence[Statement]) -> list[int]:
    """Return the places, from 1, before which some of a revision is committed: around statements in autocommit."""
    pairs = enumerate(pairwise(statements), start=1)
    return [place for place, (one, following) in pairs if not (one.in_transaction and following.in_transaction)]


def _refused_rows(observation: Observation) -> bool:
    failed = observation.upgrade
    return failed.failure is not None and (failed.sqlstate or "").startswith(REFUSED_ROWS)


def _without_any_rows(observation: Observation) -> Observation:
    reason = (
        "it fails on the rows that the review makes, and ran without any, so that what it reads, rewrites and loses was"
        " not measured; see upgrade-depends-on-data"
    )
    unfilled = {table.name: "the revision fails on rows that the review makes" for table in observation.before.tables}
    return replace(observation, unfilled=unfilled, unmeasured=(reason,))


def _without_rows(observation: Observation) -> Iterator[str]:
    """Yield why a table that the revision touches could not be filled, so that it met no row there."""
    if observation.unmeasured:
        return  # the reason covers all tables
    passes = (observation.upgrade, observation.downgrade)
    touched = {lock.table for each in passes if each for statement in each.statements for lock in statement.locks}
    for table, reason in observation.unfilled.items():
        if table in touched:
            yield f"{table} stayed empty: {reason}; what it reads, rewrites and loses there was not measured"


def _under_new_names(counts: Mapping[str, int], before: Catalog, after: Catalog) -> dict[str, int]:
    """Return the rows of tables that were renamed, by their new names."""
    now = {table.oid: table.name for table in after.tables}
    return {
        now[table.oid]: counts[table.name] for table in before.tables if now.get(table.oid, table.name) != table.name
    }


def _statement(found: Mapping[str, Any]) -> Statement:
    return Statement(
        sql=found["sql"],
        duration_ms=found["duration_ms"],
        in_transaction=found["in_transaction"],
        locks=tuple(Lock(table, mode) for table, mode in found["locks"]),
        scanned=tuple(found["scanned"]),
        rewritten=tuple(found["rewritten"]),
        read=found["read"],
        changed=found["changed"],
        bounded=found.get("bounded", False),
        idle_ms=found["idle_ms"],
        time_zone=found.get("time_zone"),
    )
