"""The functions that Alembic calls when env.py calls ``context.run_migrations()``, one for each action.

Alembic takes the next step after it has committed the last one. So code between two steps runs between two revisions.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy
from alembic.autogenerate import RevisionContext
from alembic.util import CommandError

from lambda_migrate.database.qualified import qualified
from lambda_migrate.env_py import tree
from lambda_migrate.env_py.connection import STATEMENT_SHARE, lower_statement_timeout, statement_timeout_ms
from lambda_migrate.env_py.driver_errors import text_without_values
from lambda_migrate.env_py.journal import MigrationsCall
from lambda_migrate.env_py.messages import NO_MODELS, READ_ONLY_ACTIONS, Began, Entry, Next, Ran, Started
from lambda_migrate.env_py.progress import Progress
from lambda_migrate.env_py.sqlalchemy_versions import begin, commit
from lambda_migrate.env_py.transactions import COMMITS_EACH
from lambda_migrate.invocation.errors import (
    UPGRADE_FIRST,
    ConfigurationError,
    DowngradeRefused,
    DriftDetected,
    UnknownRevision,
    not_confirmed,
)
from lambda_migrate.invocation.heads import check_ids, check_kind, heads_of
from lambda_migrate.invocation.redaction import one_line, redact
from lambda_migrate.invocation.result import VersionTable, joined

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from lambda_migrate.env_py.journal import Journal
    from lambda_migrate.env_py.messages import Job
    from lambda_migrate.invocation.result import Revision

_NAME_IN_PATH = re.compile(r'"(?:[^"]|"")+"|[^",\s]+')


# The functions that refuse a request whose revision they cannot reach.
_STEPS = {"upgrade": tree.upgrade_steps, "downgrade": tree.downgrade_steps, "stamp": tree.stamp_steps}


@dataclass
class Steps:
    """The steps of one run. Each method named after an action is an ``fn`` of Alembic's EnvironmentContext."""

    job: Job
    config: Config
    script: ScriptDirectory
    graph: tree.PackagedGraph | None
    journal: Journal
    _behind: dict[VersionTable, str] = field(default_factory=dict)
    _differences: dict[VersionTable, list[str]] = field(default_factory=dict)

    def upgrade(self, current: Sequence[str], context: MigrationContext) -> Iterator[Any]:
        """Yield the steps up to the wanted revision."""
        heads, wanted = self._begin_call(current, context), self._still_wanted()
        tree.narrow(self.script, self.graph, wanted, heads)
        if self._is_ahead(allowed=self.job.settings.newer_database_ok):
            return
        steps = tree.upgrade_steps(self.script, wanted, heads) if wanted != "+0" else []
        self._begin(steps)
        yield from self._one_by_one(steps, context)

    def downgrade(self, current: Sequence[str], context: MigrationContext) -> Iterator[Any]:
        """Yield the steps down to the wanted revision, if ``confirm`` is the database's current one."""
        heads, wanted = self._begin_call(current, context), self._still_wanted()
        self._is_ahead(allowed=False)
        self._check_confirmed()
        steps = tree.downgrade_steps(self.script, wanted, heads) if wanted != "-0" else []
        self._begin(steps)
        yield from self._one_by_one(steps, context)

    def stamp(self, current: Sequence[str], context: MigrationContext) -> Iterator[Any]:
        """Yield the steps that only write the version table, if ``confirm`` equals the revision in it.

        A stamp repairs a database at a revision that the package does not have, so the current one may be unknown.
        """
        heads = self._begin_call(current, context)
        self._check_confirmed()
        known = tree.are_known(self.script, heads)
        steps = tree.stamp_steps(self.script, self.job.revision, heads if known else ())
        self._begin(pending_known=False)
        connection = context.connection
        assert connection is not None  # noqa: S101 - online, so there is one
        if not known:
            # The first step commits this too, so the version table is never empty for others.
            table = sqlalchemy.table(context.version_table, schema=context.version_table_schema)
            begin(connection)
            connection.execute(table.delete())
            self.journal.forget(heads)
        yield from steps
        if connection.in_transaction() and not self.journal.held_open:
            # Without a step, as in a stamp to base, nothing else commits.
            commit(connection)

    def status(self, current: Sequence[str], context: MigrationContext) -> Iterable[Any]:
        """Send the database's current revisions, and return no steps."""
        heads = self._begin_call(current, context)
        tree.narrow(self.script, self.graph, self.job.revision, heads)
        if not self._is_ahead(allowed=True):
            self._begin()
            if self.job.trial in _STEPS:
                # Raises if the request cannot be carried out.
                _STEPS[self.job.trial](self.script, self.job.revision, heads)
        return ()

    def check(self, current: Sequence[str], context: MigrationContext) -> Iterable[Any]:
        """Compare the models with the database as ``alembic check`` does, for `raise_drift`. Return no steps.

        Raises:
            ConfigurationError: env.py gives Alembic no models, or they cannot be compared.
        """
        heads = self._begin_call(current, context)
        self._is_ahead(allowed=False)
        self._begin()
        if context.opts.get("target_metadata") is None:
            raise ConfigurationError(NO_MODELS)
        pending = tuple(tree.pending(self.script, heads))
        table = self.journal.calls[-1].table
        verifies_stamp = self.job.trial == "stamp"
        if pending and not verifies_stamp:
            self._behind[table] = (
                f"at {joined(heads) or 'base'} with {len(pending)} revision{'s' * (len(pending) != 1)} pending"
            )
        else:
            # Before a stamp, the version table does not have the heads yet.
            heads = tuple(self.script.get_heads()) if verifies_stamp else heads
            self._differences[table] = _differences(self.config, self.script, heads, context)
        return ()

    def raise_drift(self) -> None:
        """Raise if `check` found a difference for any version table.

        Raises:
            DriftDetected: models and database differ, or revisions are pending.
        """
        several = len({*self._behind, *self._differences}) > 1
        behind = [f"{table if several else 'the database'} is {at}" for table, at in self._behind.items()]
        if behind:
            raise DriftDetected(f"{', '.join(behind)}: {UPGRADE_FIRST}")
        differences = [
            f"{table}: {difference}" if several else difference
            for table, found in self._differences.items()
            for difference in found
        ]
        if differences:
            raise DriftDetected(
                f"the models and the database differ in {len(differences)} way{'s' * (len(differences) != 1)}:"
                f" {'; '.join(differences[:20])}"
                f"{'; ...' if len(differences) > 20 else ''}"  # noqa: PLR2004 - enough for a message
            )

    def _begin_call(self, current: Sequence[str], context: MigrationContext) -> tuple[str, ...]:
        """Record the call that Alembic begins with a version table. Return the revisions in this table, sorted."""
        heads = heads_of(current, context.version_table)
        self.journal.begin(migrations_call(context, self.job, heads))
        return heads

    def _still_wanted(self) -> str:
        """Return the requested revision. A number of steps is reduced by the steps that earlier attempts took."""
        wanted, done = self.job.revision, self.job.done.get(self.journal.calls[-1].table, 0)
        return f"{wanted[0]}{int(wanted[1:]) - done}" if wanted[0] in "+-" else wanted

    def _begin(self, steps: Sequence[Any] = (), *, pending_known: bool = True) -> None:
        call = self.journal.calls[-1]
        pending = tuple(tree.pending(self.script, call.heads)) if pending_known else ()
        call.pending = bool(pending)
        self.journal.send(
            Began(
                heads=call.heads,
                pending=pending,
                planned=tuple(tree.described(step) for step in steps),
                table=call.table,
                role=call.role,
                may_write=call.may_write,
                home=call.home,
            )
        )

    def _is_ahead(self, *, allowed: bool) -> bool:
        """Return whether the database is at a revision that the package does not have; raise if that is not allowed."""
        call = self.journal.calls[-1]
        try:
            tree.check_known(self.script, call.heads)
        except UnknownRevision:
            # An invalid revision id is an error, not a newer revision.
            check_ids((head for head in call.heads if not tree.are_known(self.script, [head])), call.table.name)
            if not allowed:
                raise
            call.ahead = True
            self.journal.send(
                Began(call.heads, (), (), call.table, call.role, ahead=True, may_write=call.may_write, home=call.home)
            )
            return True
        return False

    def _check_confirmed(self) -> None:
        call = self.journal.calls[-1]
        if call.table in self.job.located:
            # Several tables were compared with `confirm` before the first one was changed.
            confirmed = call.heads == self.job.located[call.table]
        else:
            confirmed = self.job.confirm == joined(call.heads)
        if not confirmed:
            raise DowngradeRefused(not_confirmed(self.job.confirm, joined(call.heads)))

    def _one_by_one(self, steps: Sequence[Any], context: MigrationContext) -> Iterator[Any]:
        connection = context.connection
        assert connection is not None  # noqa: S101 - online, so there is one
        deadline = self.job.deadline
        timeout_set_at = deadline.left()
        ran: Ran | None = None
        for step in steps:
            left = deadline.left()
            if left <= 0:
                self.journal.stop()
                break
            if left < timeout_set_at * STATEMENT_SHARE:
                timeout_set_at = left
                lower_statement_timeout(connection, statement_timeout_ms(self.job))
            revision = tree.described(step)
            self.journal.start(revision, self.job.action)
            # One message for the end of a revision and the start of the next: each message wakes the supervisor.
            self.journal.send(Started(revision) if ran is None else Next(ran, Started(revision)))
            started = time.monotonic()
            step.migration_fn = _in_body(step.migration_fn, self.journal)
            yield step
            # Alembic takes the next step, so this one is done. If the revision itself committed, Alembic had nothing to
            # commit, and the new version is in a later transaction that nobody else would end.
            if connection.in_transaction() and not self.journal.held_open:
                commit(connection)
            self.journal.finish()
            duration_ms = round((time.monotonic() - started) * 1000)
            committed = not connection.in_transaction()
            ran = Ran(revision, self.journal.heads, duration_ms, committed=committed)
        if ran is not None:
            self.journal.send(ran)


@dataclass
class Rendering:
    """Renders the pending revisions' SQL in Alembic's offline mode, where nothing reaches the database.

    Alembic writes to ``buffer``. ``calls`` are env.py's calls in online mode, one for each version table.
    ``findings`` are the reviewer's.
    """

    job: Job
    script: ScriptDirectory
    graph: tree.PackagedGraph | None
    journal: Journal
    buffer: io.StringIO
    calls: list[MigrationsCall]
    findings: Mapping[str, list[dict[str, Any]]]
    _call: MigrationsCall | None = None
    _sent: set[tuple[VersionTable, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._several = len(self.calls) > 1
        self._configured = {each.configured for each in self.calls}

    def configure(self, schema: str | None, table: str) -> tuple[str, ...]:
        """Return the heads of the next version table with this schema and name, or else of the next one.

        In offline mode, only the configuration shows which table it is.
        """
        key = (schema, table)
        self._call = next((each for each in self.calls if each.configured == key or key not in self._configured), None)
        heads = self._call.heads if self._call else ()
        tree.narrow(self.script, self.graph, self.job.revision, heads)
        return heads

    def plan(self, _: object, __: MigrationContext) -> Iterator[Any]:
        """Yield the steps. An error of a revision that cannot be rendered becomes part of its entry."""
        call = self._call
        if call is None:
            return
        self.calls.remove(call)
        self._call = None
        for step in tree.upgrade_steps(self.script, self.job.revision, call.heads):
            start = self.buffer.tell()
            problem: list[str] = []
            step.migration_fn = _recording_errors(step.migration_fn, problem)
            yield step
            self.buffer.seek(start)
            sql = self.buffer.read().strip()
            self._send(call, tree.described(step), sql, problem[0] if problem else None)

    def send_the_rest(self, error: BaseException, calls: list[MigrationsCall]) -> None:
        """Send an entry with env.py's own error for each revision of ``calls`` that was not rendered."""
        for call in calls:
            tree.narrow(self.script, self.graph, self.job.revision, call.heads)
            for step in tree.upgrade_steps(self.script, self.job.revision, call.heads):
                revision = tree.described(step)
                if (call.table, revision.revision) not in self._sent:
                    self._send(call, revision, None, _unrenderable(error))

    def _send(self, call: MigrationsCall, revision: Revision, sql: str | None, problem: str | None) -> None:
        self._sent.add((call.table, revision.revision))
        if self._several:
            revision = replace(revision, table=call.table)
        rendered = {"sql": None, "error": problem} if problem else {"sql": redact(sql or "")}
        # None instead of an empty list means that the revision was not reviewed.
        findings = {"findings": self.findings.get(revision.revision)}
        self.journal.send(Entry("plan", {**revision.as_json(), **rendered, **findings}))


def _in_body(migration_fn: Any, journal: Journal) -> Any:  # noqa: ANN401 - a revision's own function
    def run(**options: Any) -> None:  # noqa: ANN401
        with journal.body():
            migration_fn(**options)

    return run


def _recording_errors(migration_fn: Any, problem: list[str]) -> Any:  # noqa: ANN401 - a revision's own function
    def rendered(**options: Any) -> None:  # noqa: ANN401
        try:
            migration_fn(**options)
        except Exception as error:  # noqa: BLE001 - a revision may raise anything without a database
            problem.append(_unrenderable(error))

    return rendered


def _unrenderable(error: BaseException) -> str:
    text = one_line(text_without_values(error))
    return f"cannot be rendered without a database: {type(error).__name__}: {text}"


def history(script: ScriptDirectory) -> Iterator[Entry]:
    """Yield an entry for each revision of the package, newest first, in Alembic's order."""
    heads = set(script.get_heads())
    for revision in script.walk_revisions():
        down = revision.down_revision
        dependencies = {found.revision for found in script.get_revisions(revision.dependencies or ())}
        yield Entry(
            "history",
            {
                "revision": revision.revision,
                "description": revision.doc,
                "down_revisions": [down] if isinstance(down, str) else list(down or ()),
                **({"depends_on": sorted(dependencies)} if dependencies else {}),
                "branch_labels": sorted(revision.branch_labels),
                "head": revision.revision in heads,
            },
        )


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


def migrations_call(context: MigrationContext, job: Job, heads: tuple[str, ...]) -> MigrationsCall:
    """Return the journal's record of a call of run_migrations() that begins at these heads."""
    found = _version_table(context, is_look=job.action in READ_ONLY_ACTIONS)
    table = VersionTable(found.schema, str(context.version_table))
    progress = Progress(table, found.comment, found.may_comment, job.resumes)
    configured = (context.version_table_schema, context.version_table)
    return MigrationsCall(
        table,
        found.role,
        heads,
        configured,
        progress,
        may_write=found.may_write,
        home=found.home,
        commits_each=context.opts.get(COMMITS_EACH, False),
    )


@dataclass(frozen=True)
class _Found:
    """The version table as env.py's own session finds it, and the role that env.py set, if any.

    ``comment`` is the table's, and ``may_comment`` is True if the role may change it. ``may_write`` is False if the
    session's transactions are read-only by default; it ignores the default that `looking` sets. ``home`` is the schema
    in which the session creates by default.
    """

    schema: str
    role: str | None
    comment: str | None
    may_comment: bool
    may_write: bool
    home: str


# `looking` sets the default when the session begins, so "off" comes from env.py: a statement, or a driver's option.
_MAY_WRITE = (
    "((current_setting('default_transaction_read_only') = 'off')"
    " OR EXISTS (SELECT FROM pg_settings WHERE (name = 'default_transaction_read_only') AND (reset_val = 'off')))"
)


def _version_table(context: MigrationContext, *, is_look: bool) -> _Found:
    connection = context.connection
    assert connection is not None  # noqa: S101 - online, so there is one
    sql = sqlalchemy.text(
        qualified(
            "SELECT found.schema, CASE WHEN current_user <> session_user THEN current_user::text END,"  # noqa: S608 - ours
            # Before PostgreSQL 14, obj_description() resolves names in the session's search_path.
            " (SELECT description FROM pg_description d WHERE (d.objoid = c.oid) AND (d.objsubid = 0)"
            " AND (d.classoid = 'pg_catalog.pg_class'::regclass)), coalesce(pg_has_role(c.relowner, 'USAGE'), false),"
            " current_schema(), current_setting('search_path'), current_user::text,"
            f" {_MAY_WRITE if is_look else 'true'}, c.relkind::text"
            " FROM (SELECT coalesce((:schema)::text, (SELECT nspname FROM pg_class JOIN pg_namespace n"
            " ON n.oid = relnamespace WHERE pg_class.oid = to_regclass(quote_ident(:name))), current_schema())"
            " AS schema) AS found LEFT JOIN pg_namespace m ON m.nspname = found.schema"
            " LEFT JOIN pg_class c ON c.relnamespace = m.oid AND c.relname = :name"
        )
    )
    # SQLAlchemy replaces the schema in Alembic's own statements, too.
    replaced = connection.get_execution_options().get("schema_translate_map") or {}
    configured = context.version_table_schema
    names = {"name": context.version_table, "schema": replaced.get(configured, configured)}
    schema, role, comment, may_comment, home, path, user, may_write, kind = connection.execute(sql, names).one()
    home = home or _first_schema(path, user)
    if kind is not None:
        check_kind(kind, f'"{schema}"."{context.version_table}"')
    # SQLAlchemy's quoted_name is a str that the function's process does not know.
    return _Found(str(schema or home), role, comment, may_comment, may_write, home)


def _first_schema(search_path: str, user: str) -> str:
    """Return the first schema of a search_path. env.py creates it before it writes there."""
    names = (name.strip('"').replace('""', '"') for name in _NAME_IN_PATH.findall(search_path))
    return next((user if name == "$user" else name for name in names), "public")
