"""The attempts of one run, and the sessions and the migration lock that they need."""

from __future__ import annotations

import logging
import random
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_migrate.database.migration_lock import lock_keys, migration_lock
from lambda_migrate.database.open_session import is_rotated, open_session
from lambda_migrate.env_py.connection import READ_ONLY_ACTIONS
from lambda_migrate.env_py.messages import Job
from lambda_migrate.invocation.errors import (
    AuthenticationFailed,
    ConfigurationError,
    DatabaseUnavailable,
    LockTimeout,
    MigrationError,
    MigrationIncomplete,
    Unexpected,
)
from lambda_migrate.invocation.result import joined
from lambda_migrate.invocation.telemetry import log
from lambda_migrate.run import up_to_date
from lambda_migrate.run.account import Account
from lambda_migrate.run.outcome import TryAgain, error_of
from lambda_migrate.run.supervisor import supervise

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lambda_migrate.database.migration_lock import Lock
    from lambda_migrate.database.session import Session
    from lambda_migrate.env_py.messages import Failure
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.request import Request
    from lambda_migrate.invocation.result import RunState
    from lambda_migrate.run.account import Attempt
    from lambda_migrate.run.supervisor import ProcessEnd

_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 15.0
# Well within the server's idle_session_timeout for the session that holds the lock.
_PING_EVERY_S = 5.0
# The number of sessions that may fail before a run gives up. A password that has been rotated does not count.
_NEW_SESSIONS = 5
# A statement's timeout is a little shorter than the time that was left when it was set. So this share of the time left
# counts as none.
_ALL_BUT_USED = 0.05


def migrate(invocation: Invocation, session: Session) -> RunState:
    """Run env.py under the migration lock until the request is done, and return what was done.

    ``session`` is used first, and closed.

    Raises:
        MigrationError: one of the contract's section 7, with its ``state``; the database is at a revision boundary.
    """
    return _run(invocation, session, locked=True)


def inspect(invocation: Invocation, session: Session) -> RunState:
    """Run env.py to look at the database, without the lock and in sessions that cannot write.

    Raises:
        MigrationError: as for `migrate`.
    """
    return _run(invocation, session, locked=False)


def _run(invocation: Invocation, session: Session, *, locked: bool) -> RunState:
    account = Account(invocation.schema)
    try:
        _with_sessions(invocation, account, session, locked=locked)
    except MigrationError as error:
        # The last attempt may be unsettled, if no further session could be opened.
        final = account.give_up(error)
        final.state = account.state
        raise final from None
    except Exception as error:
        raise Unexpected(error, account.state) from error
    return account.state


def _with_sessions(invocation: Invocation, account: Account, session: Session, *, locked: bool) -> None:
    """Run with a session. After an error that may pass, begin again with a new session while there is time."""
    deadline = invocation.deadline
    failures = 0
    while True:
        try:
            with closing(session), _lock(invocation, session, locked=locked) as lock:
                account.opened(session.server.database, lock.wait_ms if lock else 0)
                if not _done_by_another_run(invocation, account, session, lock):
                    _attempts(invocation, account, session)
        except (TryAgain, DatabaseUnavailable) as failure:
            error = failure.error if isinstance(failure, TryAgain) else failure
            # A password that changed between the function's connection and env.py's never counts as a failure.
            rotated = isinstance(error, AuthenticationFailed) and is_rotated(invocation, session.credentials)
            failures += not rotated
            pause = _FIRST_BACKOFF_S * random.random() if rotated else _backoff(failures - 1, deadline)  # noqa: S311
            if failures == _NEW_SESSIONS or deadline.left() <= pause:
                raise account.give_up(error) from None
            log("connection.retried", f"{error}; trying again in {pause:.1f} s", level=logging.WARNING)
            time.sleep(pause)
            session = open_session(invocation)
        else:
            return


def _lock(invocation: Invocation, session: Session, *, locked: bool) -> AbstractContextManager[Lock | None]:
    return (
        migration_lock(session, invocation.settings, invocation.deadline, invocation.schema)
        if locked
        else nullcontext()
    )


def _done_by_another_run(invocation: Invocation, account: Account, session: Session, lock: Lock | None) -> bool:
    """Return whether the last holder of the lock left nothing to do. After an attempt, only env.py can show it."""
    if lock is None or not lock.wait_ms or account.state.attempts:
        return False
    found = up_to_date.look(invocation, session)
    if found is not None:
        account.is_up_to_date(found)
    return found is not None


def _attempts(invocation: Invocation, account: Account, session: Session) -> None:
    """Run env.py until it succeeds, backing off while the tables that it needs are locked."""
    while True:
        account.next_attempt()
        try:
            _attempt(invocation, account, session)
        except LockTimeout as error:
            state = account.state
            pause = _backoff(state.retries, invocation.deadline)
            exhausted = state.retries >= invocation.settings.lock_retries or invocation.deadline.left() <= pause
            if exhausted or error.facts.get("partly_committed"):
                raise
            account.retry()
            log(
                "revision.retried",
                f"{error}; trying again in {pause:.1f} s",
                level=logging.WARNING,
                database=state.database,
                schema=invocation.schema,
                attempt=state.attempts,
                **error.facts,
            )
            _wait(pause, session)
        else:
            return


def _attempt(invocation: Invocation, account: Account, session: Session) -> None:
    """Run env.py once, and add the revisions that the version table confirms after it.

    Raises:
        MigrationError: the attempt failed.
        TryAgain: the attempt failed for a reason that may pass.
    """
    # The session of an earlier attempt may have been lost before the version table was read on it.
    account.settle(session)
    job = _job(invocation, account.state, session)
    if job.revision in {"+0", "-0"}:
        return
    attempt = account.begin()
    before = invocation.deadline.left()
    end = supervise(job, session, attempt.receive)
    account.settle(session)
    failure = _failure(end, attempt, session)
    if _out_of_time(end, failure, left=invocation.deadline.left(), before=before):
        _check_complete(invocation, account.state, attempt, failure)
    elif failure is not None:
        raise error_of(
            failure,
            revisions=account.state.revisions,
            any_ran=bool(attempt.ran),
            holders=end.blockers,
            changes=job.action not in READ_ONLY_ACTIONS,
        ) from None
    elif end.ended and end.ended.heads not in {None, account.state.revisions}:
        raise ConfigurationError(
            "env.py ran to its end but did not commit, and what was done is lost: it begins a transaction before"
            " context.configure(), maybe with a statement, and must commit it; the database is at"
            f" {joined(account.state.revisions) or 'base'}, not at {joined(end.ended.heads or ()) or 'base'}"
        )


def _failure(end: ProcessEnd, attempt: Attempt, session: Session) -> Failure | None:
    failure = end.failure
    if failure is None:
        return None
    # After a restart of the server, env.py's own error may be anything. This query then raises the real cause.
    session.rows("SELECT 1")
    partly_committed = failure.partly_committed and not attempt.outlived
    return replace(failure, revision=attempt.running, partly_committed=partly_committed)


def _out_of_time(end: ProcessEnd, failure: Failure | None, *, left: float, before: float) -> bool:
    """Return whether time ended the attempt: the supervisor's, a statement's timeout, or a stop between revisions."""
    cut_off = failure is not None and failure.kind == "cancelled" and left <= before * _ALL_BUT_USED
    return end.out_of_time or cut_off or bool(end.ended and end.ended.stopped)


def _check_complete(invocation: Invocation, state: RunState, attempt: Attempt, failure: Failure | None) -> None:
    """Raise `MigrationIncomplete` unless all was done before time was up."""
    left = attempt.left(state.done)
    if attempt.began is None:
        raise MigrationIncomplete("Lambda's timeout came before env.py had reached the version table; invoke again")
    if not left and failure is None:
        return
    following = f", the next is {left[0].revision} ({left[0].description})" if left else ""
    # The TimeoutError of a revision that works in steps has its progress.
    progress = f" ({failure.message})" if failure and failure.error_type == TimeoutError.__name__ else ""
    raise MigrationIncomplete(
        f"stopped {invocation.deadline.reserve:.1f} s before Lambda's timeout: {len(state.done)} applied,"
        f" {len(left)} left{following}{progress}; the database is at {joined(state.revisions) or 'base'}; invoke"
        " again to go on from there",
        revision=left[0].revision if left else None,
        pending=[revision.revision for revision in left],
    )


def _job(invocation: Invocation, state: RunState, session: Session) -> Job:
    """Return the job for the process that runs env.py."""
    revision, confirm = _still_wanted(invocation.request, state)
    return Job(
        action=invocation.request.action,
        revision=revision,
        confirm=confirm,
        schema=invocation.schema,
        settings=invocation.settings,
        credentials=session.credentials,
        server=session.server,
        lock_pid=session.pid,
        lock_keys=lock_keys(invocation.schema, session.default_schema),
        application_name=invocation.name,
        deadline=invocation.deadline,
        pooled=session.pooled,
    )


def _still_wanted(request: Request, state: RunState) -> tuple[str, str | None]:
    """Return the revision and the confirmation of a further attempt, which begins where the last one ended.

    Otherwise "+2" would take two more steps from there, and a downgrade that had begun would be refused.
    """
    revision, confirm = request.revision, request.confirm
    if state.done and revision[0] in "+-":
        revision = f"{revision[0]}{int(revision[1:]) - len(state.done)}"
    if state.previous is not None and confirm == joined(state.previous):
        confirm = joined(state.revisions)
    return revision, confirm


def _wait(seconds: float, session: Session) -> None:
    """Sleep, and run a statement now and then so that the server does not end the idle session with the lock."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _PING_EVERY_S))
        session.rows("SELECT 1")


def _backoff(attempt: int, deadline: Deadline) -> float:
    """Return seconds to wait: doubling, jittered, never past the deadline."""
    pause: float = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1)  # noqa: S311
    return min(pause, deadline.left())
