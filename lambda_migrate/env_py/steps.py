"""The functions that Alembic calls when env.py calls ``context.run_migrations()``, one for each action.

Alembic takes the next step after it has committed the last one. So code between two steps runs between two revisions.
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

# A statement's timeout is this share of the time left. So it is set again only after the other 2 % have passed, not
# before each revision. The supervisor cancels a statement that still runs when time is up.
_STATEMENT_SHARE = 0.98


@dataclass
class Steps:
    """The steps of one run. Each method named after an action is an ``fn`` of Alembic's EnvironmentContext."""

    job: Job
    config: Config
    script: ScriptDirectory
    graph: tree.PackagedGraph | None
    journal: Journal

    def upgrade(self, current: Sequence[str], context: MigrationContext) -> Iterator[Any]:
        """Yield the steps up to the wanted revision."""
        heads = _heads(current)
        tree.narrow(self.script, self.graph, self.job.revision, heads)
        if self._is_ahead(heads, context, allowed=self.job.settings.newer_database_ok):
            return
        steps = tree.upgrade_steps(self.script, self.job.revision, heads)
        self._begin(heads, context, steps)
        yield from self._one_by_one(steps, context)

    def downgrade(self, current: Sequence[str], context: MigrationContext) -> Iterator[Any]:
        """Yield the steps down to the wanted revision, if ``confirm`` is the database's current one."""
        heads = _heads(current)
        self._is_ahead(heads, context, allowed=False)
        self._check_confirmed(heads)
        steps = tree.downgrade_steps(self.script, self.job.revision, heads)
        self._begin(heads, context, steps)
        yield from self._one_by_one(steps, context)

    def stamp(self, current: Sequence[str], context: MigrationContext) -> Iterator[Any]:
        """Yield the steps that only write the version table, if ``confirm`` is what it holds.

        A stamp repairs a database at a revision that the package does not have, so the current one may be unknown.
        """
        heads = _heads(current)
        self._check_confirmed(heads)
        known = tree.are_known(self.script, heads)
        steps = tree.stamp_steps(self.script, self.job.revision, heads if known else ())
        self._begin(heads, context, (), pending_known=False)
        connection = context.connection
        assert connection is not None  # noqa: S101 - online, so there is one
        if not known:
            # The first step commits this too, so the version table is never empty for others.
            table = sqlalchemy.table(context.version_table, schema=context.version_table_schema)
            connection.execute(table.delete())
            self.journal.heads, self.journal.forgotten = (), frozenset(heads)
        yield from steps
        if connection.in_transaction() and not self.journal.held_open:
            # Without a step, as in a stamp to base, nothing else commits.
            connection.commit()

    def status(self, current: Sequence[str], context: MigrationContext) -> Iterable[Any]:
        """Send the database's current revisions, and return no steps."""
        heads = _heads(current)
        tree.narrow(self.script, self.graph, self.job.revision, heads)
        if not self._is_ahead(heads, context, allowed=True):
            self._begin(heads, context, ())
        return ()

    def check(self, current: Sequence[str], context: MigrationContext) -> Iterable[Any]:
        """Compare the models with the database as ``alembic check`` does, and return no steps.

        Raises:
            DriftDetected: they differ, or revisions are pending.
            ConfigurationError: env.py gives Alembic no models, or they cannot be compared.
        """
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
        schema, role = _version_place(context)
        self.journal.send(
            Began(
                heads=heads,
                pending=tuple(tree.pending(self.script, heads)) if pending_known else (),
                planned=tuple(tree.described(step) for step in steps),
                schema=schema,
                version_table=context.version_table,
                role=role,
            )
        )

    def _is_ahead(self, heads: tuple[str, ...], context: MigrationContext, *, allowed: bool) -> bool:
        """Return whether the database is at a revision that the package does not have; raise if that is not allowed."""
        self.journal.began = True
        self.journal.heads = heads
        try:
            tree.check_known(self.script, heads)
        except UnknownRevision:
            if not allowed:
                raise
            self.journal.ahead = True
            schema, role = _version_place(context)
            self.journal.send(Began(heads, (), (), schema, context.version_table, role, ahead=True))
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
            # One message for the end of a revision and the start of the next: each message wakes the supervisor.
            self.journal.send(Started(revision) if ran is None else Next(ran, Started(revision)))
            started = time.monotonic()
            yield step
            # Alembic takes the next step, so this one is done. If the revision itself committed, Alembic had nothing to
            # commit, and the new version is in a later transaction that nobody else would end.
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
    """Renders the pending revisions' SQL in Alembic's offline mode, where nothing reaches the database.

    Alembic writes to ``buffer``. ``heads`` are the database's current revisions, ``findings`` the reviewer's.
    """

    job: Job
    script: ScriptDirectory
    journal: Journal
    buffer: io.StringIO
    heads: tuple[str, ...]
    findings: Mapping[str, list[dict[str, Any]]]
    _sent: set[str] = field(default_factory=set)

    def plan(self, _: object, __: MigrationContext) -> Iterator[Any]:
        """Yield the steps. An error of a revision that cannot be rendered becomes part of its entry."""
        for step in tree.upgrade_steps(self.script, self.job.revision, self.heads):
            start = self.buffer.tell()
            problem: list[str] = []
            step.migration_fn = _recording_errors(step.migration_fn, problem)
            yield step
            self.buffer.seek(start)
            sql = self.buffer.read().strip()
            revision = tree.described(step)
            self._sent.add(revision.revision)
            self._send(revision, sql, problem[0] if problem else None)

    def send_the_rest(self, error: BaseException) -> None:
        """Send an entry with the error that env.py itself raised for each revision that was not rendered."""
        for step in tree.upgrade_steps(self.script, self.job.revision, self.heads):
            revision = tree.described(step)
            if revision.revision not in self._sent:
                self._send(revision, None, _unrenderable(error))

    def _send(self, revision: Revision, sql: str | None, problem: str | None) -> None:
        rendered = {"sql": None, "error": problem} if problem else {"sql": redact(sql or "")}
        # None and not an empty list: nobody has reviewed the revision.
        reviewed = {"findings": self.findings.get(revision.revision)}
        self.journal.send(Entry("plan", {**revision.as_json(), **rendered, **reviewed}))


def _recording_errors(migration_fn: Any, problem: list[str]) -> Any:  # noqa: ANN401 - a revision's own function
    def rendered(**options: Any) -> None:  # noqa: ANN401
        try:
            migration_fn(**options)
        except Exception as error:  # noqa: BLE001 - a revision may raise anything without a database
            problem.append(_unrenderable(error))

    return rendered


def _unrenderable(error: BaseException) -> str:
    return f"cannot be rendered without a database: {type(error).__name__}: {one_line(error)}"


def history(script: ScriptDirectory) -> Iterator[Entry]:
    """Yield an entry for each revision of the package, newest first, in Alembic's order."""
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
    """Return the longest time that one statement may take from now on."""
    left = max(1, int(job.deadline.left() * 1000 * _STATEMENT_SHARE))
    return min(job.settings.statement_timeout_ms or left, left)


def _heads(current: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(current))


def _differences(
    config: Config, script: ScriptDirectory, heads: tuple[str, ...], context: MigrationContext
) -> list[str]:
    """Return what autogenerate would write, one text for each difference, with the class of ``alembic check``."""
    arguments = {
        "message": None, "autogenerate": True, "sql": False, "head": "heads", "splice": False,
        "branch_label": None, "version_path": None, "rev_id": None, "depends_on": None,
    }  # fmt: skip
    generation = RevisionContext(config, script, arguments)
    try:
        generation.run_autogenerate(heads, context)
    except CommandError as error:
        raise ConfigurationError(f"the models cannot be compared: {one_line(error)}") from None
    # An env.py may remove the revision from the list if it is empty.
    operations = [each for generated in generation.generated_revisions[-1:] for each in generated.upgrade_ops_list]
    return [one_line(repr(diff), limit=300) for each in operations for diff in each.as_diffs()]


def _lower_statement_timeout(connection: sqlalchemy.Connection, to_ms: int) -> None:
    """Lower the statement timeout. A lower one is env.py's own and stays."""
    connection.exec_driver_sql(
        f"SELECT set_config(name, '{to_ms}', false) FROM pg_settings"  # noqa: S608 - a number
        f" WHERE name = 'statement_timeout' AND setting::int NOT BETWEEN 1 AND {to_ms}"
    )


def _version_place(context: MigrationContext) -> tuple[str, str | None]:
    """Return the schema of the version table as env.py's own session finds it, and the role that env.py set, if any."""
    connection = context.connection
    assert connection is not None  # noqa: S101 - online, so there is one
    sql = sqlalchemy.text(
        "SELECT coalesce(:schema, (SELECT nspname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE pg_class.oid = to_regclass(quote_ident(:name))), current_schema(), 'public'),"
        " nullif(current_user::text, session_user::text)"
    )
    names = {"name": context.version_table, "schema": context.version_table_schema}
    schema, role = connection.execute(sql, names).one()
    return schema, role
