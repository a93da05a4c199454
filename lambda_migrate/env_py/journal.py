"""Watches the statements on env.py's connection: records a revision's commits, and resumes an interrupted one."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event

from lambda_migrate.env_py.driver_errors import server_error
from lambda_migrate.env_py.messages import IndexDropped, Message, StatementSkipped
from lambda_migrate.env_py.progress import RunsOtherStatements
from lambda_migrate.env_py.resuming import SKIPPED, Resuming
from lambda_migrate.env_py.statements import end_of_transaction
from lambda_migrate.env_py.transactions import is_autocommit, is_idle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.runtime.migration import MigrationContext
    from sqlalchemy.engine import ExceptionContext

    from lambda_migrate.env_py.progress import Progress
    from lambda_migrate.invocation.result import Revision, VersionTable


_NO_WORK = re.compile(r"\s*(--[^\n]*\n\s*)*(SELECT|SET|SHOW|RESET|BEGIN|COMMIT|ROLLBACK)\b", re.IGNORECASE)
# Statements that may commit before their end if they run outside of a transaction.
_MAY_COMMIT = re.compile(r"\s*(--[^\n]*\n\s*)*(CALL|DO)\b", re.IGNORECASE)
_ENDS_WITH_TRANSACTION = re.compile(
    r"\bCREATE\s+(?:LOCAL\s+)?TEMP(?:ORARY)?\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?\"?(\w+).*?\bON\s+COMMIT\s+DROP\b",
    re.IGNORECASE | re.DOTALL,
)


@dataclass
class MigrationsCall:
    """One call of ``context.run_migrations()``: its version table, and the revisions that the table has now.

    ``configured`` are the schema, if any, and the name that env.py gave to ``context.configure()``. ``ahead`` is True
    if the package does not have those revisions. ``may_write`` is False if the session is read-only by default.
    ``pending`` is True if revisions are pending here. ``home`` is the schema in which the session creates by default.
    """

    table: VersionTable
    role: str | None
    heads: tuple[str, ...]
    configured: tuple[str | None, str]
    progress: Progress
    ahead: bool = False
    may_write: bool = True
    pending: bool = False
    home: str | None = None
    # True if plain Alembic would commit each revision, because env.py has set ``transaction_per_migration``.
    commits_each: bool = False
    # How many revisions have begun.
    begun: int = 0


class RollsBack(Exception):  # noqa: N818 - the name that the failure has in messages
    """The revision ended the transaction that it began in, and not by a commit."""

    def __init__(self) -> None:
        super().__init__(
            "it rolls its transaction back, or prepares it, so what it did before is lost, and under plain Alembic the"
            " revisions before it are lost, too; for work that may fail, use `with op.get_bind().begin_nested():`"
        )


@dataclass(frozen=True)
class Caught:
    """An error that left ``context.run_migrations()``, with the state of the running revision.

    ``table`` is None if Alembic had not read a version table. This counts if env.py catches the error.
    """

    error: BaseException
    table: VersionTable | None
    revision: Revision | None
    partly_committed: bool


@dataclass
class Journal:
    """The progress of one run of env.py: its version tables, the running revision, and whether that has committed."""

    send: Callable[[Message], None]
    stopped: bool = False
    revision: Revision | None = None
    # env.py's calls of ``context.run_migrations()``. The last one runs.
    calls: list[MigrationsCall] = field(default_factory=list)
    # Revisions that a stamp deleted from the version table. Alembic does not know that and still lists them as heads.
    forgotten: frozenset[str] = frozenset()
    # True if env.py began its own transaction around all revisions. Its end decides whether they are committed.
    held_open: bool = False
    partly_committed: bool = False
    # The object that blocks the running statement.
    note: str = ""
    # Tables that a revision created for its own transaction.
    temporary: set[str] = field(default_factory=set)
    # Errors that left ``context.run_migrations()``, without those of migrations that have run again since.
    caught: list[Caught] = field(default_factory=list)
    # True if env.py caught one of these errors and ended without an error.
    went_on: bool = False
    # True if a revision ran other statements than the interrupted run that it continued: it must begin again.
    differs: bool = False
    _uncommitted_work: bool = False
    # The connections of env.py. A revision's other connections do not concern its transaction.
    _watched: list[sqlalchemy.Connection] = field(default_factory=list)
    # True while a revision's own function runs.
    _in_body: bool = False
    # True if the revision has ended the transaction that it began in.
    _ended: bool = False
    # True if it ended that in a way that loses work of its own or, under plain Alembic, of earlier revisions.
    _rolls_back: bool = False
    # What `partly_committed` was before the last commit.
    _partly_before: bool = False
    # The connection of the last commit, until something else runs there.
    _committing: sqlalchemy.Connection | None = None
    _resuming: Resuming | None = None
    # True while statements of ours run on the revision's connection.
    _busy: bool = False

    @property
    def began(self) -> bool:
        """True if Alembic has read a version table."""
        return bool(self.calls)

    @property
    def heads(self) -> tuple[str, ...]:
        """The revisions in the version table of the current call."""
        return self.calls[-1].heads

    def begin(self, found: MigrationsCall) -> None:
        """Begin a call of ``context.run_migrations()``."""
        self.calls.append(found)
        self.forgotten = frozenset()

    def start(self, revision: Revision, action: str) -> None:
        """Begin a revision. Each commit from now until its end is a part of it."""
        self.revision = revision
        self.calls[-1].begun += 1
        self.calls[-1].progress.start(f"{action} {revision.revision}", self.heads)
        self.partly_committed = self._partly_before = self._uncommitted_work = False
        self._ended = self._rolls_back = False

    def finish(self, heads: tuple[str, ...] | None = None) -> None:
        """End the revision. ``heads`` are then in the version table, if the caller has written it without Alembic."""
        self.revision = None
        if heads is not None:
            self.calls[-1].heads = heads

    def stop(self) -> None:
        """Note that the deadline came before the next revision."""
        self.stopped = True

    def forget(self, heads: tuple[str, ...]) -> None:
        """Note that a stamp has deleted these revisions from the version table."""
        self.calls[-1].heads, self.forgotten = (), frozenset(heads)

    def set_held_open(self, _: sqlalchemy.Connection, held_open: bool) -> None:  # noqa: FBT001 - the hook's signature
        """Note whether env.py itself ends the transaction of its revisions."""
        self.held_open = held_open

    def begin_again(self) -> None:
        """End the revision, and let the next one differ from an interrupted run."""
        self.finish()
        self.differs = False

    @contextmanager
    def migrations(self) -> Iterator[None]:
        """Note an error that leaves ``context.run_migrations()``. It is settled when the same migrations run again."""
        before = len(self.calls)
        self.revision = None
        try:
            yield
        except BaseException as error:
            table = self.calls[-1].table if len(self.calls) > before else None
            revision = self.revision and replace(self.revision, table=table)
            self.caught = [each for each in self.caught if each.table != table]
            self.caught.append(Caught(error, table, revision, self.partly_committed))
            raise
        settled: set[VersionTable | None] = {each.table for each in self.calls[before:]}
        # Without its table, an error belongs to the only one that env.py has, if it has only one.
        if len({each.table for each in self.calls}) == 1:
            settled.add(None)
        self.caught = [each for each in self.caught if each.table not in settled]

    def raise_caught(self, ended_by: SystemExit | None = None) -> None:
        """Raise the first error of migrations that env.py caught, if it has not run them again since.

        ``ended_by`` is the SystemExit that ended env.py. A revision may have raised it.
        """
        for caught in self.caught:
            self.revision, self.partly_committed = caught.revision, caught.partly_committed
            self.went_on = caught.error is not ended_by
            raise caught.error

    def watch(self, connection: sqlalchemy.Connection) -> None:
        """Follow the statements and commits of a connection.

        SQLAlchemy does not see every commit: a revision may execute COMMIT, call a procedure that commits, or commit on
        the driver's connection. The connection's own transaction status shows these.
        """
        self._watched.append(connection)
        event.listen(connection, "before_cursor_execute", self._before, retval=True)
        event.listen(connection, "after_cursor_execute", self._after)
        event.listen(connection, "commit", self._committed)
        event.listen(connection, "rollback", self._rolled_back)
        event.listen(connection.engine, "handle_error", self._failed)
        if self._resuming is None:
            self._resuming = Resuming(self._index_dropped, self._statement_skipped)
            # On each connection, because a revision may open another one in autocommit mode.
            event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", self._resume, retval=True)

    def _before(
        self,
        connection: sqlalchemy.Connection,
        _: object,
        statement: str,
        parameters: Any,  # noqa: ANN401 - as the driver wants them
        __: object,
        executemany: bool,  # noqa: FBT001 - as SQLAlchemy calls it
    ) -> tuple[str, Any]:
        """Return the statement, or one that does nothing in place of one that an interrupted run has committed."""
        if self.is_busy:
            return statement, parameters
        if self._in_body and self._rolls_back:
            raise RollsBack
        self._committing = None
        self._notice_commit(connection)
        if not self._is_committed(connection, statement, parameters):
            return statement, parameters
        self._statement_skipped("its transaction was committed")
        return SKIPPED, [()] if executemany else ()  # as it takes no parameters

    def _after(
        self,
        connection: sqlalchemy.Connection,
        cursor: object,
        statement: str,
        parameters: object,
        *_: object,
    ) -> None:
        if self.is_busy:
            return
        self.note = ""
        end = end_of_transaction(statement)
        # PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK. Not every driver shows the answer.
        if end == "commit" and getattr(cursor, "statusmessage", None) == "ROLLBACK":
            end = "rollback"
        self.temporary.update(_ENDS_WITH_TRANSACTION.findall(statement))
        # A text of several statements may do work before it ends the transaction.
        self._uncommitted_work |= _is_work(connection, statement)
        if end is not None:
            self._end(connection, rolled_back=end == "rollback")
        if end == "commit" and self._uncommitted_work:
            # After COMMIT AND CHAIN, the session is in a transaction.
            self.partly_committed, self._uncommitted_work = True, False
        if self.revision is not None and not is_idle(connection):
            progress = self.calls[-1].progress
            if _NO_WORK.match(statement):
                progress.queried(statement)
            else:
                progress.ran(statement, parameters)
        self._notice_commit(connection)

    def _end(self, connection: sqlalchemy.Connection, *, rolled_back: bool, always_loses: bool = False) -> None:
        """Note that a statement of the revision, or SQLAlchemy for it, ends a transaction.

        A rollback loses what the revision did before, and under plain Alembic what the revisions before it in the same
        call did, unless Alembic commits each. With ``always_loses``, it loses what follows it, too.
        """
        if not self._in_body or self.held_open or connection.invalidated or is_autocommit(connection):
            return
        if rolled_back and not self._ended:
            now = self.calls[-1]
            loses = self._uncommitted_work or now.begun > 1
            self._rolls_back = always_loses or (loses and not now.commits_each)
            self._uncommitted_work = False
        self._ended = True

    @contextmanager
    def body(self) -> Iterator[None]:
        """Wrap the revision's own function.

        Raises:
            RollsBack: the revision has lost work by a rollback. Its version must not be written, even if the
                revision caught this error when its next statement raised it.
        """
        self._in_body = True
        try:
            yield
        finally:
            self._in_body = False
        if self._rolls_back:
            raise RollsBack

    def _committed(self, connection: sqlalchemy.Connection) -> None:
        """Note the committed revisions, right before SQLAlchemy commits."""
        self._end(connection, rolled_back=False)
        if self._uncommitted_work and self.revision is not None and not (self.held_open or is_idle(connection)):
            with self._own_statements():
                self.calls[-1].progress.note(connection)
        self._partly_before = self.partly_committed
        self.partly_committed |= self._uncommitted_work
        self._uncommitted_work = False
        self._committing = connection

    def _failed(self, context: ExceptionContext) -> None:
        """Count the work as not committed if the server refused this commit, as it does for a deferred constraint.

        An error on another connection of the revision does not concern this commit.
        """
        committing, self._committing = self._committing, None
        connection, statement = context.connection, context.statement or ""
        if connection is None or not any(connection is each for each in self._watched):
            pass
        elif end_of_transaction(statement) == "commit" and _has_refused(context):
            self._end(connection, rolled_back=True)
        elif _MAY_COMMIT.match(statement) and not context.is_disconnect:
            # In a transaction, the session would be in a failed one now.
            self.partly_committed |= self._in_body and not self.is_busy and is_idle(connection)
        if committing is None or context.connection is not committing or context.statement or context.execution_context:
            return
        if _has_refused(context):
            self.partly_committed = self._partly_before

    def _rolled_back(self, connection: sqlalchemy.Connection) -> None:
        self._committing = None
        self._notice_commit(connection)
        # Alembic commits only the transaction that it began, so later work of the revision is lost, too.
        self._end(connection, rolled_back=True, always_loses=True)
        self._uncommitted_work = False
        if self.calls:
            self.calls[-1].progress.rolled_back()

    def _resume(self, connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> tuple[str, Any]:  # noqa: ANN401
        """Return a revision's statement, or its replacement if an interrupted run has run it already."""
        resuming = self._resuming
        if resuming is not None and self.revision is not None and connection.dialect.name == "postgresql":
            statement = resuming.before(connection, statement)
            self.note = resuming.note
        return statement, parameters

    @property
    def is_busy(self) -> bool:
        """Return whether a statement of the journal's own is running."""
        return self._busy or (self._resuming is not None and self._resuming.is_busy)

    @contextmanager
    def _own_statements(self) -> Iterator[None]:
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _is_committed(self, connection: sqlalchemy.Connection, statement: str, parameters: object) -> bool:
        """Return whether an interrupted run has committed this statement of the running revision."""
        if self.differs:
            raise RunsOtherStatements
        if self.revision is None or not _is_work(connection, statement) or is_autocommit(connection):
            return False
        try:
            with self._own_statements():
                return self.calls[-1].progress.is_committed(connection, statement, parameters)
        except RunsOtherStatements:
            self.differs = True
            raise

    def version_applied(self, *, heads: set[str], ctx: MigrationContext, **_: Any) -> None:  # noqa: ANN401 - Alembic's
        """Note the written version, and remove the notes of the revision in the same transaction.

        Alembic calls this, as its ``on_version_apply``.
        """
        self.calls[-1].heads = tuple(sorted(heads - self.forgotten))
        if ctx.connection is None:
            return
        try:
            with self._own_statements():
                self.calls[-1].progress.clear(ctx.connection)
        except RunsOtherStatements:
            self.differs = True
            raise

    def _notice_commit(self, connection: sqlalchemy.Connection) -> None:
        """Note that the revision's work is committed, if the session is in no transaction any more."""
        # SQLAlchemy also reports a rollback for a lost connection, which has no status.
        if self._uncommitted_work and not connection.invalidated and is_idle(connection):
            self.partly_committed, self._uncommitted_work = True, False

    def _index_dropped(self, name: str) -> None:
        assert self.revision is not None  # noqa: S101 - only a revision's statements are looked at
        self.send(IndexDropped(name, self.revision))

    def _statement_skipped(self, why: str) -> None:
        assert self.revision is not None  # noqa: S101 - as above
        self.send(StatementSkipped(why, self.revision))


def _has_refused(context: ExceptionContext) -> bool:
    """Return whether the server refused a commit."""
    state = server_error(context.original_exception).sqlstate
    # The result is unknown without the server's answer, or if the session ended while it waited for a replica.
    return state is not None and not state.startswith(("08", "57"))


def _is_work(connection: sqlalchemy.Connection, statement: str) -> bool:
    # A backfill sets "repeatable": it continues after its own commits, so another attempt is safe.
    return not (_NO_WORK.match(statement) or connection.info.get("repeatable"))
