"""What the function does for each action of the contract.

A run is believed only as far as the version table shows it, read on another session after env.py's process has ended:
not what was run counts, but what is committed.
"""

from __future__ import annotations

import random
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lambda_migrate.contract import (
    Applied,
    AuthenticationFailed,
    ConfigurationError,
    DatabaseUnavailable,
    InvalidRequest,
    LockTimeout,
    MigrationError,
    MigrationFailed,
    MigrationIncomplete,
    Request,
    Result,
    Revision,
    TargetMismatch,
    UnknownRevision,
    joined,
)
from lambda_migrate.database import Session, migration_lock, open_session, versions
from lambda_migrate.messages import Began, Failure, IndexDropped, Message, Output, Ran, Started
from lambda_migrate.telemetry import log

if TYPE_CHECKING:
    from lambda_migrate.credentials import CredentialStore
    from lambda_migrate.deadline import Deadline
    from lambda_migrate.settings import Settings

_REFUSALS: dict[str, type[MigrationError]] = {
    error.__name__: error for error in (ConfigurationError, InvalidRequest, TargetMismatch, UnknownRevision)
}
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 15.0
# How often a run begins again when the server went away under it or refused a password that has been rotated.
_NEW_SESSIONS = 3


@dataclass(frozen=True)
class Invocation:
    """What one invocation works with. ``name`` is its sessions' application_name."""

    settings: Settings
    store: CredentialStore
    deadline: Deadline
    name: str


@dataclass
class Progress:
    """What a run has achieved so far, over all its attempts."""

    database: str = ""
    previous: tuple[str, ...] | None = None
    revisions: tuple[str, ...] = ()
    applied: list[Applied] = field(default_factory=list)
    pending: tuple[Revision, ...] = ()
    attempts: int = 0
    retries: int = 0
    lock_wait_ms: int = 0
    ahead: bool = False

    def applied_ids(self) -> list[str]:
        """The ids of what was applied, in order."""
        return [applied.revision.revision for applied in self.applied]


class _TryAgain(Exception):  # noqa: N818 - no error: the run begins again
    """An attempt ended in a way that may pass. ``error`` is what to raise when there is no other attempt."""

    def __init__(self, error: MigrationError) -> None:
        super().__init__(str(error))
        self.error = error


def upgrade(request: Request, invocation: Invocation, progress: Progress) -> Result:
    """Apply what is pending, up to the wanted revision.

    ``progress`` is filled as the run goes on, so that a caller can tell how far a failed run came.

    Raises:
        MigrationError: one of the contract's section 7; the database is at a revision boundary.
    """
    for remaining in reversed(range(_NEW_SESSIONS)):
        try:
            with (
                closing(
                    open_session(invocation.settings, invocation.store, invocation.deadline, invocation.name)
                ) as session,
                migration_lock(session, invocation.settings, invocation.deadline, None) as lock,
            ):
                progress.database = session.server.database
                progress.lock_wait_ms += lock.wait_ms
                _attempts(request, invocation, session, progress)
            break
        except _TryAgain as again:
            if not remaining or invocation.deadline.left() <= 0:
                raise again.error from None
            if isinstance(again.error, AuthenticationFailed):
                invocation.store.refresh(invocation.settings)
            time.sleep(_backoff(_NEW_SESSIONS - remaining, invocation.deadline))
    return Result(
        action=request.action,
        stage=invocation.settings.stage,
        database=progress.database,
        schema=None,
        previous_revisions=progress.previous or (),
        revisions=progress.revisions,
        applied=tuple(progress.applied),
        pending=progress.pending,
        attempts=progress.attempts,
        lock_wait_ms=progress.lock_wait_ms,
        ahead=progress.ahead,
    )


def _attempts(request: Request, invocation: Invocation, session: Session, progress: Progress) -> None:
    """Run env.py until it comes through, backing off while the tables it needs are locked."""
    retries_left = invocation.settings.lock_retries
    while True:
        progress.attempts += 1
        try:
            _attempt(request, invocation, session, progress)
        except LockTimeout as error:
            pause = _backoff(progress.retries, invocation.deadline)
            if not retries_left or error.facts.get("partly_committed") or invocation.deadline.left() <= pause:
                raise
            retries_left -= 1
            progress.retries += 1
            log(
                "revision.retried",
                f"{error}; trying again in {pause:.1f} s",
                database=progress.database,
                attempt=progress.attempts,
                **error.facts,
            )
            time.sleep(pause)
        else:
            return


def _attempt(request: Request, invocation: Invocation, session: Session, progress: Progress) -> None:
    """Run env.py once and take what the version table says of it."""
    # Alembic and SQLAlchemy load here, not with the handler: a request that is refused does not pay for them.
    from lambda_migrate.environment import Job  # noqa: PLC0415
    from lambda_migrate.supervisor import died, supervise  # noqa: PLC0415

    job = Job(
        revision=request.revision,
        settings=invocation.settings,
        credentials=session.credentials,
        server=session.server,
        application_name=invocation.name,
        deadline=invocation.deadline,
    )
    account = _Account(progress)
    try:
        watch = supervise(job, session, account.receive)
        if account.began is not None:
            account.settle(versions(session, account.began.schema, account.began.version_table))
    except DatabaseUnavailable as error:
        raise _TryAgain(error) from None
    failure = watch.ended.failure if watch.ended else None
    if watch.ended is None and not watch.out_of_time:
        failure = replace(died(watch), revision=account.running)
    if watch.out_of_time or (watch.ended and watch.ended.stopped):
        _check_complete(account, invocation.deadline)
    elif failure is not None:
        raise _error(failure, progress, [holder.pid for holder in watch.blockers], [str(b) for b in watch.blockers])


def _check_complete(account: _Account, deadline: Deadline) -> None:
    """Time was up; it may have been enough all the same."""
    if not account.wanted():
        return
    progress = account.progress
    done = f"{len(progress.applied)} applied" if progress.applied else "nothing applied"
    left = account.wanted()
    raise MigrationIncomplete(
        f"stopped {deadline.reserve:.0f} s before Lambda's timeout: {done}, {len(left)} left, the next is"
        f" {left[0].revision} ({left[0].description}); the database is at {joined(progress.revisions) or 'base'};"
        " invoke again to go on from there",
        applied=progress.applied_ids(),
        pending=[revision.revision for revision in left],
    )


@dataclass
class _Account:
    """Follows one attempt's messages, logs them, and settles them against the version table."""

    progress: Progress
    began: Began | None = None
    running: Revision | None = None
    ran: list[Ran] = field(default_factory=list)
    logged: set[str] = field(default_factory=set)

    def receive(self, message: Message) -> None:
        progress = self.progress
        if isinstance(message, Began):
            self.began = message
            if progress.previous is None:
                progress.previous = message.heads
            progress.revisions, progress.pending, progress.ahead = message.heads, message.pending, message.ahead
        elif isinstance(message, Started):
            self.running = message.revision
            log(
                "revision.started",
                f"applying {message.revision.revision} ({message.revision.description})",
                database=progress.database,
                revision=message.revision.revision,
                down_revision=joined(message.parents),
                description=message.revision.description,
                attempt=progress.attempts,
            )
        elif isinstance(message, Ran):
            self.running = None
            self.ran.append(message)
            if message.committed:
                self._log_applied(message)
        elif isinstance(message, IndexDropped):
            log(
                "index.dropped",
                f"dropped the invalid index {message.index} that an interrupted run had left, to build it again",
                database=progress.database,
                revision=message.revision.revision,
            )
        elif isinstance(message, Output):
            log("backend.output", message.text, level=message.level, source=message.source)

    def _log_applied(self, ran: Ran) -> None:
        self.logged.add(ran.revision.revision)
        log(
            "revision.applied",
            f"applied {ran.revision.revision} ({ran.revision.description})",
            database=self.progress.database,
            revision=ran.revision.revision,
            description=ran.revision.description,
            duration_ms=ran.duration_ms,
            attempt=self.progress.attempts,
        )

    def settle(self, actual: tuple[str, ...]) -> None:
        """Take the committed version table as the truth about what ran.

        Revisions run one after the other, so what is committed is the longest run of them that left the table as it
        is now; what ran after that was rolled back.
        """
        committed = 0
        for number, ran in enumerate(self.ran, start=1):
            if tuple(sorted(ran.heads)) == actual:
                committed = number
        for ran in self.ran[:committed]:
            if ran.revision.revision not in self.logged:
                self._log_applied(ran)
            self.progress.applied.append(Applied(ran.revision, ran.duration_ms))
        done = {ran.revision.revision for ran in self.ran[:committed]}
        self.progress.revisions = actual
        self.progress.pending = tuple(r for r in self.progress.pending if r.revision not in done)

    def wanted(self) -> tuple[Revision, ...]:
        """The revisions of this attempt that are still not applied."""
        if self.began is None:
            return ()
        left = {revision.revision for revision in self.progress.pending}
        return tuple(r for r in self.began.pending[: self.began.steps] if r.revision in left)


def _error(failure: Failure, progress: Progress, pids: list[int], holders: list[str]) -> MigrationError | _TryAgain:
    """The error of the contract that a failure of env.py or of a revision is."""
    facts: dict[str, object] = {
        "revision": failure.revision.revision if failure.revision else None,
        "sqlstate": failure.sqlstate,
        "statement": failure.statement,
        "table": failure.table,
        "constraint": failure.constraint,
        "blocking_pids": pids or None,
        "partly_committed": failure.partly_committed or None,
    }
    where = f"the database is at {joined(progress.revisions) or 'base'}"
    said = f"{failure.error_type}: {failure.message}"
    if failure.kind == "refused":
        return _REFUSALS.get(failure.error_type, ConfigurationError)(failure.message, **facts)
    if failure.revision is None:
        return _before_any_revision(failure, said, facts)
    what = f"revision {failure.revision.revision} ({failure.revision.description})"
    if failure.kind == "lock":
        blocked = f"blocked by {'; '.join(holders)}" if holders else "the blocking session is gone"
        again = (
            " (it had committed part of its work, so it is not tried again by itself)"
            if failure.partly_committed
            else ""
        )
        return LockTimeout(f"{what} could not get its table locks: {said}; {blocked}; {where}{again}", **facts)
    if failure.kind == "connection" and not failure.partly_committed:
        return _TryAgain(DatabaseUnavailable(f"the connection was lost during {what}: {said}; {where}", **facts))
    state = f" (SQLSTATE {failure.sqlstate})" if failure.sqlstate else ""
    part = "; it had committed part of its work before" if failure.partly_committed else ""
    return MigrationFailed(f"{what} failed: {said}{state}{part}; {where}", **facts)


def _before_any_revision(failure: Failure, said: str, facts: dict[str, object]) -> MigrationError | _TryAgain:
    if failure.kind == "authentication":
        return _TryAgain(AuthenticationFailed(f"env.py's connection was refused: {said}", **facts))
    if failure.kind in {"connection", "lock"}:
        return _TryAgain(
            DatabaseUnavailable(
                f"env.py could not work with its connection: {said} (does it take its address from DATABASE_URL?"
                " See DATABASE_URL_ENV and DATABASE_ENV)",
                **facts,
            )
        )
    return ConfigurationError(f"env.py failed before any revision ran: {said}", **facts)


def _backoff(attempt: int, deadline: Deadline) -> float:
    """Seconds to wait: doubling, jittered, never past the deadline."""
    pause: float = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1)  # noqa: S311
    return min(pause, deadline.left())
