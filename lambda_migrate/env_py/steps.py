"""What Alembic is given to do when env.py calls ``context.run_migrations()``, for each action.

Alembic asks for the next step when it has committed the last one: so between two steps is between two revisions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy
from alembic.autogenerate import RevisionContext
from alembic.util import CommandError

from lambda_migrate.env_py import tree
from lambda_migrate.env_py.messages import Began, Entry, Next, Ran, Started
from lambda_migrate.invocation.errors import ConfigurationError, DowngradeRefused, DriftDetected, UnknownRevision
from lambda_migrate.invocation.redaction import one_line, redact
from lambda_migrate.invocation.result import joined

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from lambda_migrate.env_py.journal import Journal
    from lambda_migrate.env_py.messages import Job
    from lambda_migrate.invocation.result import Revision

# A statement gets this share of the time left, so that the timeout need not be set again before each revision but only
# once that much has passed. The supervisor cancels what is still running when time is up.
_STATEMENT_SHARE = 0.98


@dataclass
class Steps:
    """The steps of one run. Each method that is named after an action is an ``fn`` of Alembic's EnvironmentContext."""

    job: Job
    config: Config
    script: ScriptDirectory
    graph: tree.PackagedGraph | None
    journal: Journal

    def upgrade(self, current: Sequence[str], context: MigrationContext) -> Iterator[Any]:
        """The steps up to the wanted revision."""
        heads = _heads(current)
        tree.narrow(self.script, self.graph, self.job.revision, heads)
        if self._is_ahead(heads, context, allowed=self.job.settings.newer_database_ok):
            return
        steps = tree.upgrade_steps(self.script, self.job.revision, heads)
        self._begin(heads, context, steps)
        yield from self._one_by_one(steps, context)

    def downgrade(self, current: Sequence[str], context: MigrationContext) -> Iterator[Any]:
        """The steps down to the wanted revision, if the caller knows where the database is."""
        heads = _heads(current)
        self._is_ahead(heads, context, allowed=False)
        self._check_confirmed(heads)
        steps = tree.downgrade_steps(self.script, self.job.revision, heads)
        self._begin(heads, context, steps)
        yield from self._one_by_one(steps, context)

    def stamp(self, current: Sequence[str], context: MigrationContext) -> Iterator[Any]:
        """The steps that only write the version table, if the caller knows what it holds.

        This is the way out for a database at a revision that the package does not have, so it asks for no known one.
        """
        heads = _heads(current)
        self._check_confirmed(heads)
        known = tree.are_known(self.script, heads)
        steps = tree.stamp_steps(self.script, self.job.revision, heads if known else ())
        self._begin(heads, context, (), pending_known=False)
        connection = context.connection
        assert connection is not None  # noqa: S101 - online, so there is one
        if not known:
            # In the transaction that the first step commits: no moment without a version.
            table = sqlalchemy.table(context.version_table, schema=context.version_table_schema)
            connection.execute(table.delete())
            self.journal.heads, self.journal.forgotten = (), frozenset(heads)
        yield from steps
        if connection.in_transaction() and not self.journal.held_open:
            # There was no step, as there is none to base.
            connection.commit()

    def status(self, current: Sequence[str], context: MigrationContext) -> Iterable[Any]:
        """No step: only where the database is."""
        heads = _heads(current)
        tree.narrow(self.script, self.graph, self.job.revision, heads)
        if not self._is_ahead(heads, context, allowed=True):
            self._begin(heads, context, ())
        return ()

    def check(self, current: Sequence[str], context: MigrationContext) -> Iterable[Any]:
        """No step, but a comparison of the models with the database, as ``alembic check`` makes it."""
        heads = _heads(current)
        self._is_ahead(heads, context, allowed=False)
        self._begin(heads, context, ())
        if context.opts.get("target_metadata") is None:
            raise ConfigurationError("env.py gives Alembic no target_metadata, so there are no models to check")
        pending = tuple(tree.pending(self.script, heads))
        if pending:
            raise DriftDetected(
                f"the database is at {joined(heads) or 'base'} with {len(pending)} revisions pending: models can only"
                " be compared at head; upgrade first"
            )
        differences = _differences(self.config, self.script, heads, context)
        if differences:
            raise DriftDetected(
                f"the models and the database differ in {len(differences)} ways: {'; '.join(differences[:20])}"
                f"{'; ...' if len(differences) > 20 else ''}"  # noqa: PLR2004 - enough for a message
            )
        return ()

    def _begin(
        self, heads: tuple[str, ...], context: MigrationContext, steps: Sequence[Any], *, pending_known: bool = True
    ) -> None:
        self.journal.began = True
        self.journal.heads = heads
        self.journal.send(
            Began(
                heads=heads,
                pending=tuple(tree.pending(self.script, heads)) if pending_known else (),
                planned=tuple(tree.described(step) for step in steps),
                schema=_version_schema(context),
                version_table=context.version_table,
            )
        )

    def _is_ahead(self, heads: tuple[str, ...], context: MigrationContext, *, allowed: bool) -> bool:
        """Whether the database is at a revision that the package does not have, where that is allowed."""
        self.journal.began = True
        self.journal.heads = heads
        try:
            tree.check_known(self.script, heads)
        except UnknownRevision:
            if not allowed:
                raise
            self.journal.ahead = True
            self.journal.send(Began(heads, (), (), _version_schema(context), context.version_table, ahead=True))
            return True
        return False

    def _check_confirmed(self, heads: tuple[str, ...]) -> None:
        self.journal.began = True
        if self.job.confirm != joined(heads):
            raise DowngradeRefused(
                f"confirm must be the database's current revision, {joined(heads) or 'null (it is empty)'}, to show"
                f" that you know where it is, not {self.job.confirm!r}"
            )

    def _one_by_one(self, steps: Sequence[Any], context: MigrationContext) -> Iterator[Any]:
        connection = context.connection
        assert connection is not None  # noqa: S101 - online, so there is one
        deadline = self.job.deadline
        timeout_set_at = deadline.left()
        ran: Ran | None = None
        for step in steps:
            left = deadline.left()
            if left <= 0:
                self.journal.stopped = True
                break
            if left < timeout_set_at * _STATEMENT_SHARE:
                timeout_set_at = left
                _lower_statement_timeout(connection, statement_timeout_ms(self.job))
            revision = tree.described(step)
            self.journal.start(revision)
            # The end of one and the beginning of the next in one message: each wakes the supervisor.
            self.journal.send(Started(revision) if ran is None else Next(ran, Started(revision)))
            started = time.monotonic()
            yield step
            # Alembic came back for more, so this step is behind it. A revision that committed by itself has left
            # Alembic nothing to commit, and what came after, the new version, in a transaction that nobody would end.
            if connection.in_transaction() and not self.journal.held_open:
                connection.commit()
            self.journal.revision = None
            duration_ms = round((time.monotonic() - started) * 1000)
            committed = not connection.in_transaction()
            ran = Ran(revision, self.journal.heads, duration_ms, committed=committed)
        if ran is not None:
            self.journal.send(ran)


@dataclass
class Rendering:
    """Renders the pending revisions' SQL with Alembic's offline mode, where nothing reaches the database.

    ``buffer`` is what Alembic writes to; ``heads`` is where the database is; ``findings`` are the reviewer's.
    """

    job: Job
    script: ScriptDirectory
    journal: Journal
    buffer: io.StringIO
    heads: tuple[str, ...]
    findings: Mapping[str, list[dict[str, Any]]]
    _told: set[str] = field(default_factory=set)

    def plan(self, _: object, __: MigrationContext) -> Iterator[Any]:
        """The steps, each with its function made to tell rather than to raise what cannot be rendered."""
        for step in tree.upgrade_steps(self.script, self.job.revision, self.heads):
            start = self.buffer.tell()
            problem: list[str] = []
            step.migration_fn = _told(step.migration_fn, problem)
            yield step
            self.buffer.seek(start)
            sql = self.buffer.read().strip()
            revision = tree.described(step)
            self._told.add(revision.revision)
            self._tell(revision, sql, problem[0] if problem else None)

    def tell_the_rest(self, error: BaseException) -> None:
        """Say of every revision that was not rendered why: env.py itself raised."""
        for step in tree.upgrade_steps(self.script, self.job.revision, self.heads):
            revision = tree.described(step)
            if revision.revision not in self._told:
                self._tell(revision, None, _unrenderable(error))

    def _tell(self, revision: Revision, sql: str | None, problem: str | None) -> None:
        rendered = {"sql": None, "error": problem} if problem else {"sql": redact(sql or "")}
        # None, not an empty list, of a revision that nobody has reviewed.
        reviewed = {"findings": self.findings.get(revision.revision)}
        self.journal.send(Entry("plan", {**revision.as_json(), **rendered, **reviewed}))


def _told(migration_fn: Any, problem: list[str]) -> Any:  # noqa: ANN401 - a revision's own function
    def rendered(**options: Any) -> None:  # noqa: ANN401
        try:
            migration_fn(**options)
        except Exception as error:  # noqa: BLE001 - a revision may raise anything when it is given no database
            problem.append(_unrenderable(error))

    return rendered


def _unrenderable(error: BaseException) -> str:
    return f"cannot be rendered without a database: {type(error).__name__}: {one_line(error)}"


def history(script: ScriptDirectory) -> Iterator[Entry]:
    """Every revision of the package, newest first as Alembic walks them."""
    heads = set(script.get_heads())
    for revision in script.walk_revisions():
        down = revision.down_revision
        yield Entry(
            "history",
            {
                "revision": revision.revision,
                "description": revision.doc,
                "down_revisions": [down] if isinstance(down, str) else list(down or ()),
                "branch_labels": sorted(revision.branch_labels),
                "head": revision.revision in heads,
            },
        )


def statement_timeout_ms(job: Job) -> int:
    """The longest that one statement may take from now on."""
    left = max(1, int(job.deadline.left() * 1000 * _STATEMENT_SHARE))
    return min(job.settings.statement_timeout_ms or left, left)


def _heads(current: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(current))


def _differences(
    config: Config, script: ScriptDirectory, heads: tuple[str, ...], context: MigrationContext
) -> list[str]:
    """What autogenerate would write, one text a difference, through the same class as ``alembic check``."""
    arguments = {
        "message": None, "autogenerate": True, "sql": False, "head": "heads", "splice": False,
        "branch_label": None, "version_path": None, "rev_id": None, "depends_on": None,
    }  # fmt: skip
    generation = RevisionContext(config, script, arguments)
    try:
        generation.run_autogenerate(heads, context)
    except CommandError as error:
        raise ConfigurationError(f"the models cannot be compared: {one_line(error)}") from None
    # An env.py may take the revision out of the list when there is nothing in it.
    operations = [each for generated in generation.generated_revisions[-1:] for each in generated.upgrade_ops_list]
    return [one_line(repr(diff), limit=300) for each in operations for diff in each.as_diffs()]


def _lower_statement_timeout(connection: sqlalchemy.Connection, to_ms: int) -> None:
    """Lower it as time passes; a lower one is env.py's own."""
    connection.exec_driver_sql(
        f"SELECT set_config(name, '{to_ms}', false) FROM pg_settings"  # noqa: S608 - a number
        f" WHERE name = 'statement_timeout' AND setting::int NOT BETWEEN 1 AND {to_ms}"
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
