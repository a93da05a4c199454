"""One run: sessions, the lock, the attempts, and what is believed of them.

A run is believed only as far as the version table shows it, read on another session after env.py's process has ended:
not what was run counts, but what is committed.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lambda_migrate.database.migration_lock import Holder, migration_lock
from lambda_migrate.database.session import is_rotated, versions
from lambda_migrate.env_py.messages import Began, IndexDropped, Job, Next, Output, Ran, Started, Told
from lambda_migrate.invocation.errors import (
    AuthenticationFailed,
    ConfigurationError,
    DatabaseUnavailable,
    DowngradeRefused,
    DriftDetected,
    InvalidRequest,
    LockTimeout,
    MigrationError,
    MigrationFailed,
    MigrationIncomplete,
    TargetMismatch,
    UnknownRevision,
)
from lambda_migrate.invocation.result import Applied, joined
from lambda_migrate.invocation.telemetry import log
from lambda_migrate.run.supervisor import died, supervise
from lambda_migrate.run.up_to_date import is_current

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from lambda_migrate.database.migration_lock import Lock
    from lambda_migrate.database.session import Session
    from lambda_migrate.env_py.messages import Failure, Message
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.invocation import Invocation, Progress
    from lambda_migrate.invocation.request import Request
    from lambda_migrate.invocation.result import Revision

_REFUSALS: Mapping[str, type[MigrationError]] = {
    error.__name__: error
    for error in (
        ConfigurationError,
        DowngradeRefused,
        DriftDetected,
        InvalidRequest,
        TargetMismatch,
        UnknownRevision,
    )
}
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 15.0
# Well within the server's idle_session_timeout for the session that holds the lock.
_PING_EVERY_S = 5.0
# How often a run begins again when the server went away under it or refused a password that has been rotated.
_NEW_SESSIONS = 5


class _TryAgain(Exception):  # noqa: N818 - no error: the run begins again
    """An attempt ended in a way that may pass. ``error`` is what to raise when there is no other attempt."""

    def __init__(self, error: MigrationError) -> None:
        super().__init__(str(error))
        self.error = error


def migrate(invocation: Invocation, progress: Progress, session: Session) -> None:
    """Run env.py under the migration lock until what is asked for is done.

    ``progress`` is filled as the run goes on, so that a caller can tell how far a failed run came. ``session`` is the
    one to begin with; it is closed in the end.

    Raises:
        MigrationError: one of the contract's section 7; the database is at a revision boundary.
    """
    _with_sessions(invocation, progress, session, locked=True)


def inspect(invocation: Invocation, progress: Progress, session: Session) -> None:
    """Run env.py to look at the database, without a lock and in sessions that cannot write.

    Raises:
        MigrationError: as for `migrate`.
    """
    _with_sessions(invocation, progress, session, locked=False)


def _with_sessions(invocation: Invocation, progress: Progress, session: Session, *, locked: bool) -> None:
    """Try with a session, and begin again with another one while the reason may pass and there is time."""
    settings, store, deadline = invocation.settings, invocation.store, invocation.deadline
    failures = 0
    while True:
        try:
            with closing(session), _lock(invocation, session, locked=locked) as lock:
                progress.database = session.server.database
                progress.lock_wait_ms += lock.wait_ms if lock else 0
                # Whoever held the lock before us may have done it all.
                if not (lock and lock.wait_ms and is_current(invocation, session, progress)):
                    _attempts(invocation, session, progress)
        except (_TryAgain, DatabaseUnavailable) as failure:
            error = failure.error if isinstance(failure, _TryAgain) else failure
            # A password that changed between our connection and env.py's is no failure, however often it does.
            rotated = isinstance(error, AuthenticationFailed) and is_rotated(
                settings, store, deadline, session.credentials
            )
            failures += not rotated
            pause = _FIRST_BACKOFF_S * random.random() if rotated else _backoff(failures - 1, deadline)  # noqa: S311
            if failures == _NEW_SESSIONS or deadline.left() <= pause:
                raise _told_as_it_is(error, progress) from None
            log("connection.retried", f"{error}; trying again in {pause:.1f} s", level=logging.WARNING)
            time.sleep(pause)
            session = invocation.open_session()
        else:
            return


def _told_as_it_is(error: MigrationError, progress: Progress) -> MigrationError:
    """The error of a run that ends without a look at the version table, with what is known of the database."""
    account = progress.unsettled
    progress.unsettled = None
    if account is None or account.began is None:
        return error
    done = account.committed()
    progress.done += done
    known = f"{done[-1].revision.revision} was committed" if done else "nothing was committed before that"
    unknown = account.running or next((ran.revision for ran in account.ran[len(done) :]), None)
    doubt = f", and whether {unknown.revision} was is unknown: ask for the status" if unknown else ""
    return type(error)(f"{error}; as far as is known {known}{doubt}", **error.facts)


def _lock(invocation: Invocation, session: Session, *, locked: bool) -> AbstractContextManager[Lock | None]:
    return (
        migration_lock(session, invocation.settings, invocation.deadline, invocation.schema)
        if locked
        else nullcontext()
    )


def job_of(invocation: Invocation, session: Session, progress: Progress) -> Job:
    """What the process that runs env.py has to know."""
    revision, confirm = _still_wanted(invocation.request, progress)
    return Job(
        action=invocation.request.action,
        revision=revision,
        confirm=confirm,
        schema=invocation.schema,
        settings=invocation.settings,
        credentials=session.credentials,
        server=session.server,
        lock_pid=session.pid,
        application_name=invocation.name,
        deadline=invocation.deadline,
    )


def _still_wanted(request: Request, progress: Progress) -> tuple[str, str | None]:
    """The revision and the confirmation of a further attempt, which begins where the last one came to.

    Otherwise "two steps" would be taken again from there, and a downgrade that had begun would be refused.
    """
    revision, confirm = request.revision, request.confirm
    if progress.done and revision[0] in "+-":
        revision = f"{revision[0]}{int(revision[1:]) - len(progress.done)}"
    if progress.previous is not None and confirm == joined(progress.previous):
        confirm = joined(progress.revisions)
    return revision, confirm


def _attempts(invocation: Invocation, session: Session, progress: Progress) -> None:
    """Run env.py until it comes through, backing off while the tables it needs are locked."""
    while True:
        progress.attempts += 1
        try:
            _attempt(invocation, session, progress)
        except LockTimeout as error:
            pause = _backoff(progress.retries, invocation.deadline)
            exhausted = progress.retries >= invocation.settings.lock_retries or invocation.deadline.left() <= pause
            if exhausted or error.facts.get("partly_committed"):
                raise
            progress.retries += 1
            log(
                "revision.retried",
                f"{error}; trying again in {pause:.1f} s",
                level=logging.WARNING,
                database=progress.database,
                schema=invocation.schema,
                attempt=progress.attempts,
                **error.facts,
            )
            _wait(pause, session)
        else:
            return


def _attempt(invocation: Invocation, session: Session, progress: Progress) -> None:
    """Run env.py once and take what the version table says of it."""
    settle(session, progress)
    if _still_wanted(invocation.request, progress)[0] in {"+0", "-0"}:
        return
    account = progress.unsettled = Account(progress, invocation.schema)
    before = invocation.deadline.left()
    watch = supervise(job_of(invocation, session, progress), session, account.receive)
    settle(session, progress)
    failure = watch.ended.failure if watch.ended else None
    if watch.ended is None and not watch.out_of_time:
        failure = died(watch)
    if failure is not None:
        # A server that has restarted is another one to env.py: what is wrong then is that ours is gone.
        session.rows("SELECT 1")
        failure = replace(
            failure, revision=account.running, partly_committed=failure.partly_committed and not account.outlived
        )
    # The server's own timeout for a statement is a little shorter than the time that was left when it was set.
    cut_off = failure is not None and failure.kind == "cancelled" and invocation.deadline.left() <= before * 0.05
    if watch.out_of_time or cut_off or (watch.ended and watch.ended.stopped):
        _check_complete(account, invocation, failure)
    elif failure is not None:
        raise _error(failure, account, watch.blockers)
    elif watch.ended and watch.ended.heads not in {None, progress.revisions}:
        raise ConfigurationError(
            "env.py ran to its end but did not commit, and what was done is lost: it begins a transaction before"
            " context.configure(), maybe with a statement, and must commit it; the database is at"
            f" {joined(progress.revisions) or 'base'}, not at {joined(watch.ended.heads or ()) or 'base'}"
        )


def settle(session: Session, progress: Progress) -> None:
    """Take what the version table says of the last attempt, also where our session was lost before it could look."""
    account = progress.unsettled
    if account is not None and account.began is not None:
        account.settle(versions(session, account.began.schema, account.began.version_table))
    progress.unsettled = None


def _check_complete(account: Account, invocation: Invocation, failure: Failure | None) -> None:
    """Time was up; it may have been enough all the same."""
    progress, left = account.progress, account.left()
    if account.began is None:
        raise MigrationIncomplete("Lambda's timeout came before env.py had reached the version table; invoke again")
    if not left and failure is None:
        return
    following = f", the next is {left[0].revision} ({left[0].description})" if left else ""
    # Of a revision that works in steps: how far it came.
    came_to = f" ({failure.message})" if failure and failure.error_type == TimeoutError.__name__ else ""
    raise MigrationIncomplete(
        f"stopped {invocation.deadline.reserve:.1f} s before Lambda's timeout: {len(progress.done)} applied,"
        f" {len(left)} left{following}{came_to}; the database is at {joined(progress.revisions) or 'base'}; invoke"
        " again to go on from there",
        revision=left[0].revision if left else None,
        pending=[revision.revision for revision in left],
    )


@dataclass
class Account:
    """Follows one attempt's messages, logs them, and settles them against the version table."""

    progress: Progress
    schema: str | None
    began: Began | None = None
    running: Revision | None = None
    started: float = 0.0
    ran: list[Ran] = field(default_factory=list)
    logged: set[str] = field(default_factory=set)
    outlived: bool = False

    def receive(self, message: Message) -> None:
        """Take one message in."""
        progress = self.progress
        if isinstance(message, Began):
            self.began = message
            if progress.previous is None:
                progress.previous = message.heads
            progress.revisions, progress.pending, progress.ahead = message.heads, message.pending, message.ahead
            progress.told.clear()
        elif isinstance(message, Started):
            self.running, self.started = message.revision, time.monotonic()
            self._log(
                "revision.started",
                "running",
                message.revision,
                down_revision=joined(message.revision.down_revisions),
                step=len(self.ran) + 1,
                steps=len(self.began.planned) if self.began else None,
            )
        elif isinstance(message, Next):
            self.receive(message.ran)
            self.receive(message.started)
        elif isinstance(message, Ran):
            self.running = None
            self.ran.append(message)
            if message.committed:
                self._log_done(message)
        elif isinstance(message, IndexDropped):
            what = f"dropped the invalid index {message.index}, left by an interrupted run, before building it again:"
            self._log("index.dropped", what, message.revision)
        elif isinstance(message, Told):
            progress.told.setdefault(message.name, []).append(message.entry)
        elif isinstance(message, Output):
            log("backend.output", message.text, level=message.level, source=message.source)

    def _log_done(self, ran: Ran) -> None:
        self.logged.add(ran.revision.revision)
        self._log("revision.applied", "committed", ran.revision, duration_ms=ran.duration_ms)

    def _log(
        self,
        event: Any,  # noqa: ANN401 - an Event, which its parameter checks
        what: str,
        revision: Revision,
        **facts: Any,  # noqa: ANN401 - whatever a log line may hold
    ) -> None:
        log(
            event,
            f"{what} {revision.revision} ({revision.description})",
            database=self.progress.database,
            schema=self.schema,
            revision=revision.revision,
            description=revision.description,
            attempt=self.progress.attempts,
            **facts,
        )

    def settle(self, actual: tuple[str, ...]) -> None:
        """Take the committed version table as the truth about what ran.

        Revisions run one after the other, so what is committed is the longest run of them that left the table as it
        is now; what ran after that was rolled back. A table that is as none of them left it is that of the revision
        that was still running for all we had heard.
        """
        known = [self.began.heads if self.began else (), *(tuple(sorted(ran.heads)) for ran in self.ran)]
        committed = max((number for number, heads in enumerate(known) if heads == actual), default=None)
        if committed is None and self.running is not None:
            # Nobody else writes this table while we hold the lock: the commit went through and its answer was lost.
            self.ran.append(Ran(self.running, actual, _ms_since(self.started), committed=True))
            self.running, self.outlived = None, True
        for ran in self.ran[:committed]:
            if ran.revision.revision not in self.logged:
                self._log_done(ran)
            self.progress.done.append(Applied(ran.revision, ran.duration_ms))
        done = set(self.progress.done_ids())
        self.progress.revisions = actual
        self.progress.pending = tuple(r for r in self.progress.pending if r.revision not in done)

    def committed(self) -> list[Applied]:
        """What env.py's own session saw committed, where the version table cannot be read."""
        return [Applied(ran.revision, ran.duration_ms) for ran in self.ran if ran.committed]

    def left(self) -> tuple[Revision, ...]:
        """The revisions of this attempt that are still to be stepped through."""
        done = set(self.progress.done_ids())
        return tuple(r for r in (self.began.planned if self.began else ()) if r.revision not in done)


def _error(failure: Failure, account: Account, holders: tuple[Holder, ...]) -> MigrationError | _TryAgain:
    """The error of the contract that a failure of env.py or of a revision is."""
    facts: dict[str, object] = {
        "revision": failure.revision.revision if failure.revision else None,
        "sqlstate": failure.sqlstate,
        "statement": failure.statement,
        "table": failure.table,
        "constraint": failure.constraint,
        "blocking_pids": [holder.pid for holder in holders] or None,
        "partly_committed": failure.partly_committed or None,
    }
    where = f"the database is at {joined(account.progress.revisions) or 'base'}"
    said = f"{failure.error_type}: {failure.message}"
    if failure.kind == "refused":
        return _REFUSALS.get(failure.error_type, ConfigurationError)(failure.message, **facts)
    if failure.revision is None and not account.ran and failure.kind != "lock":
        return _before_any_revision(failure, said, facts)
    what = f"revision {failure.revision.revision} ({failure.revision.description})" if failure.revision else "env.py"
    part = "; it had committed part of its work before, so it is not run again by itself"
    part = part if failure.partly_committed else ""
    if failure.kind == "lock":
        named = "; ".join(str(holder) for holder in holders)
        blocked = f"blocked by {named}" if holders else "the blocking session was gone when we looked"
        return LockTimeout(f"{what} could not get its table locks: {said}; {blocked}{part}; {where}", **facts)
    if failure.kind == "connection" and not failure.partly_committed:
        return _TryAgain(DatabaseUnavailable(f"the connection was lost during {what}: {said}; {where}", **facts))
    state = f" (SQLSTATE {failure.sqlstate})" if failure.sqlstate else ""
    return MigrationFailed(f"{what} failed: {said}{state}{part}; {where}", **facts)


def _before_any_revision(failure: Failure, said: str, facts: dict[str, object]) -> MigrationError | _TryAgain:
    if failure.kind == "authentication":
        return _TryAgain(AuthenticationFailed(f"env.py's connection was refused: {said}", **facts))
    if failure.kind == "connection":
        return _TryAgain(
            DatabaseUnavailable(
                f"env.py could not work with its connection: {said} (does it take its address from DATABASE_URL?"
                " See DATABASE_URL_ENV and DATABASE_ENV)",
                **facts,
            )
        )
    return ConfigurationError(f"env.py failed before any revision ran: {said}", **facts)


def _wait(seconds: float, session: Session) -> None:
    """Sleep, without letting the session that holds the lock idle out."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _PING_EVERY_S))
        session.rows("SELECT 1")


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _backoff(attempt: int, deadline: Deadline) -> float:
    """Seconds to wait: doubling, jittered, never past the deadline."""
    pause: float = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1)  # noqa: S311
    return min(pause, deadline.left())
