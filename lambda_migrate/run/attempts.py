"""The attempts of one run, and the sessions and the migration lock that they need."""

from __future__ import annotations

import logging
import random
import time
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_migrate.database.migration_lock import lock_keys, migration_lock
from lambda_migrate.database.open_session import is_rotated, open_session
from lambda_migrate.database.session import find_untrusted
from lambda_migrate.database.untrusted import refuse
from lambda_migrate.env_py.messages import MAY_PASS, READ_ONLY_ACTIONS, Began, Job
from lambda_migrate.invocation.errors import (
    AuthenticationFailed,
    ConfigurationError,
    DatabaseUnavailable,
    DowngradeRefused,
    InvalidRequest,
    LockTimeout,
    MigrationError,
    MigrationIncomplete,
    TargetMismatch,
    Unexpected,
    UnknownRevision,
    not_confirmed,
)
from lambda_migrate.invocation.loading import load
from lambda_migrate.invocation.request import GUARDED_ACTIONS
from lambda_migrate.invocation.result import joined, merged
from lambda_migrate.invocation.telemetry import log
from lambda_migrate.revisions import manifest
from lambda_migrate.run import up_to_date
from lambda_migrate.run.outcome import TryAgain, error_of
from lambda_migrate.run.process import start_server
from lambda_migrate.run.run_record import RunRecord, log_untrusted
from lambda_migrate.run.supervisor import supervise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from lambda_migrate.database.migration_lock import Lock
    from lambda_migrate.database.session import Session
    from lambda_migrate.env_py.messages import Failure, Message
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import Revision, RunState, VersionTable
    from lambda_migrate.revisions.checkpoint import Checkpoint, NotedTable
    from lambda_migrate.run.run_record import Attempt
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


def migrate(invocation: Invocation, session: Session, *, preflight: bool = False) -> RunState:
    """Run env.py under the migration lock until the request is done, and return what was done.

    ``session`` is used first, and closed. With ``preflight``, the pending revisions are compared with the database
    before the first attempt.

    Raises:
        MigrationError: one of the contract's section 7, with its ``state``; the database is at a revision boundary.
    """
    return _run(invocation, session, locked=True, preflight=preflight)


def inspect(invocation: Invocation, session: Session) -> RunState:
    """Run env.py to look at the database, without the lock and in sessions that cannot write.

    Raises:
        MigrationError: as for `migrate`.
    """
    return _run(invocation, session, locked=False)


def look(invocation: Invocation, session: Session) -> list[Began]:
    """Return what env.py's session has at each version table, also if nothing is pending; empty if env.py fails."""
    start_server(invocation.settings)
    begun, end = _look(invocation, RunRecord(invocation.schema), session)
    return begun if end.failure is None else []


def _run(invocation: Invocation, session: Session, *, locked: bool, preflight: bool = False) -> RunState:
    start_server(invocation.settings)
    record = RunRecord(invocation.schema)
    try:
        _with_sessions(invocation, record, session, locked=locked, preflight=preflight)
    except MigrationError as error:
        # The last attempt may be unsettled, if no further session could be opened.
        final = record.give_up(error)
        final.state = record.state
        raise final from None
    except Exception as error:
        raise Unexpected(error, record.state) from error
    return record.state


def _with_sessions(
    invocation: Invocation, record: RunRecord, session: Session, *, locked: bool, preflight: bool
) -> None:
    """Run with a session. After an error that may pass, begin again with a new session while there is time."""
    deadline = invocation.deadline
    failures = 0
    while True:
        try:
            with closing(session), _lock(invocation, session, locked=locked) as lock:
                record.opened(session.server.database, lock.wait_ms if lock else 0)
                if not _done_by_another_run(invocation, record, session, lock):
                    _check_trusted(invocation, session, first=not record.state.attempts)
                    first = preflight and record.estimated is None
                    if not (first and _nothing_is_pending(invocation, record, session)):
                        _attempts(invocation, record, session)
        except (TryAgain, DatabaseUnavailable) as failure:
            error = failure.error if isinstance(failure, TryAgain) else failure
            # A password that changed between the function's connection and env.py's never counts as a failure.
            rotated = isinstance(error, AuthenticationFailed) and is_rotated(invocation, session.credentials)
            failures += not rotated
            pause = _FIRST_BACKOFF_S * random.random() if rotated else _backoff(failures - 1, deadline)  # noqa: S311
            if failures == _NEW_SESSIONS or deadline.left() <= pause:
                raise record.give_up(error) from None
            log("connection.retried", f"{error}; trying again in {pause:.1f} s", level=logging.WARNING)
            time.sleep(pause)
            session = open_session(invocation)
        else:
            return


def _nothing_is_pending(invocation: Invocation, record: RunRecord, session: Session) -> bool:
    """Compare the pending revisions with the database. Return True if env.py was run for that, and none is pending.

    Raises:
        PreflightFailed: one would fail or block for too long, and the preflight is enforced.
    """
    looked: list[Began] = []

    def look() -> list[Began]:
        begun, end = _look(invocation, record, session)
        looked.extend(begun if end.failure is None else ())
        return begun

    record.estimated = load("lambda_migrate.run.preflight").before_upgrade(invocation, session, look)
    is_done = invocation.request.revision in {"head", "heads"} and not any(
        each.pending or each.ahead for each in looked
    )
    if looked and is_done:
        record.found(looked)
    return bool(looked) and is_done


def _lock(invocation: Invocation, session: Session, *, locked: bool) -> AbstractContextManager[Lock | None]:
    return (
        migration_lock(session, invocation.settings, invocation.deadline, invocation.schema)
        if locked
        else nullcontext()
    )


def _done_by_another_run(invocation: Invocation, record: RunRecord, session: Session, lock: Lock | None) -> bool:
    """Return whether the last holder of the lock left nothing to do. After an attempt, only env.py can show it."""
    if lock is None or not lock.wait_ms or record.state.attempts:
        return False
    found = up_to_date.look_again(invocation, session)
    if found is not None:
        record.is_up_to_date(found)
    return found is not None


def _check_trusted(invocation: Invocation, session: Session, *, first: bool) -> None:
    """Warn or raise if another role could run code with the rights of the login in env.py's session.

    Only a run that found nothing to do skips this check: none of its statements resolves a name outside pg_catalog, and
    it reads the version table only if trusted roles own it.
    """
    if invocation.settings.untrusted_schema == "ignore":
        return
    found = find_untrusted(session, invocation.schema)
    if refuse(found, invocation.settings) and first:
        log_untrusted(found, session.server.database, invocation.schema)


def _attempts(invocation: Invocation, record: RunRecord, session: Session) -> None:
    """Run env.py until it succeeds, backing off while the tables that it needs are locked."""
    checkpoint = _may_use_checkpoint(invocation, record, session)
    if _concerns_all_tables(invocation) and not record.state.attempts:
        _check_all_tables(invocation, record, session)
    while True:
        record.next_attempt()
        try:
            _attempt(invocation, record, session, checkpoint=checkpoint)
        except LockTimeout as error:
            state = record.state
            pause = _backoff(state.retries, invocation.deadline)
            exhausted = state.retries >= invocation.settings.lock_retries or invocation.deadline.left() <= pause
            if exhausted or error.facts.get("partly_committed"):
                raise
            record.retry()
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


def _may_use_checkpoint(invocation: Invocation, record: RunRecord, session: Session) -> bool:
    """Return whether env.py may begin with the packaged checkpoint if it finds an empty database.

    env.py may use a checkpoint with several version tables only if it reaches exactly these tables. A look shows it.
    """
    packaged = manifest.for_settings(invocation.settings)
    if invocation.request.action != "upgrade" or packaged is None or packaged.checkpoint is None:
        return False
    if not invocation.settings.checkpoint or any(each.revisions for each in record.state.tables):
        return False
    noted = _noted_tables(invocation)
    if len(noted) < 2:  # noqa: PLR2004 - several
        return True
    # With one of them, the database is not empty.
    if session.rows("SELECT 1 FROM pg_class WHERE relname = ANY(%s) LIMIT 1", ([table.name for table in noted],)):
        return False
    looked, end = _look(invocation, record, session)
    if end.failure is not None or not looked:
        return False
    home = looked[0].table.schema
    found = {(began.table.schema, began.table.name) for began in looked}
    return found == {(table.schema or home, table.name) for table in noted}


def _noted_tables(invocation: Invocation) -> tuple[NotedTable, ...]:
    tree = manifest.tree_of(invocation.settings)
    try:
        found: Checkpoint | None = (
            load("lambda_migrate.revisions.checkpoint").read_checkpoint(tree) if tree is not None else None
        )
    except (OSError, ValueError):
        return ()  # env.py's process reports the error
    return found.tables if found is not None else ()


def _attempt(invocation: Invocation, record: RunRecord, session: Session, *, checkpoint: bool) -> None:
    """Run env.py once, and add the revisions that the version table confirms after it.

    Raises:
        MigrationError: the attempt failed.
        TryAgain: the attempt failed for a reason that may pass.
    """
    # The session of an earlier attempt may have been lost before the version table was read on it.
    record.settle(session)
    job = replace(_job(invocation, record, session), output_lines=record.output_lines, checkpoint=checkpoint)
    attempt = record.begin(session.default_schema)
    before = invocation.deadline.left()
    end = supervise(job, session, attempt.receive)
    if _must_write(end) or _differs(end):
        record.settle(session)
        job = replace(
            _job(invocation, record, session),
            may_write=_must_write(end),
            resumes=not _differs(end),
            output_lines=record.output_lines,
        )
        attempt = record.begin(session.default_schema)
        end = supervise(job, session, attempt.receive)
    record.settle(session)
    failure = _failure(end, attempt, session)
    if _out_of_time(end, failure, left=invocation.deadline.left(), before=before):
        has_ended = bool(end.ended) or not _may_have_more_tables(invocation, record, session)
        _check_complete(invocation, record, attempt, failure, has_ended=has_ended)
    elif failure is not None:
        if job.action not in READ_ONLY_ACTIONS and _may_have_more_tables(invocation, record, session):
            with suppress(DatabaseUnavailable):  # the failure counts, not the look
                record.found(_look(invocation, record, session)[0])
        if failure.revision and record.state.tables:
            table = failure.revision.table or attempt.begun[-1].table
            failure = replace(failure, revision=replace(failure.revision, table=table))
        raise error_of(
            failure,
            where=record.state.where(),
            any_ran=bool(attempt.ran),
            several=bool(record.state.tables),
            holders=end.blockers,
            changes=job.action not in READ_ONLY_ACTIONS,
        ) from None
    elif end.ended and end.ended.heads is not None:
        _check_committed(record, end.ended.heads)


def _check_committed(record: RunRecord, expected: Mapping[VersionTable, tuple[str, ...]]) -> None:
    """Raise if a version table does not hold the revisions at which env.py's process left it."""
    actual = record.located()
    lost = {table: heads for table, heads in expected.items() if actual[table] != heads}
    if lost:
        several = f" ({', '.join(map(str, lost))})" if len(expected) > 1 else ""
        raise ConfigurationError(
            "env.py ran to its end but did not commit, and what was done is lost: it begins a transaction before"
            " context.configure(), maybe with a statement, and must commit it, or it lacks `with"
            " context.begin_transaction():` around context.run_migrations();"
            f" {record.state.where()}, not at {joined(merged(lost.values())) or 'base'}{several}"
        )


def _concerns_all_tables(invocation: Invocation) -> bool:
    """Return whether a version table, or a database, that env.py comes to later may refuse the request."""
    request, packaged = invocation.request, manifest.for_settings(invocation.settings)
    loops = packaged is not None and packaged.loops
    return request.action in GUARDED_ACTIONS or (request.action == "upgrade" and (loops or request.revision[0] == "+"))


def _check_all_tables(invocation: Invocation, record: RunRecord, session: Session) -> None:
    """Refuse a request that a version table would refuse, before the first one is changed, if env.py has several.

    A single one is checked by the process that changes it.

    Raises:
        DowngradeRefused: ``confirm`` is not where they are.
        InvalidRequest: the wanted revision cannot be reached from where one of them is.
        TargetMismatch: env.py connects to another database, even if it connected to the right one first.
        UnknownRevision: one of them is at a revision that the package does not have.
        TryAgain: they could not be read, for a reason that may pass.
    """
    packaged = manifest.for_settings(invocation.settings)
    if packaged is not None and packaged.version_table is not None:
        return  # the builder has seen that env.py has one only
    request = invocation.request
    looked, end = _look(invocation, record, session, trial=request.action)
    failure = end.failure
    if failure is not None and (failure.kind in MAY_PASS or failure.error_type == TargetMismatch.__name__):
        error = error_of(failure, where="", any_ran=False, several=False, holders=end.blockers, changes=False)
        if isinstance(error, TargetMismatch):
            raise error
        raise error if isinstance(error, TryAgain) else TryAgain(error)
    refused = failure is not None and failure.error_type == InvalidRequest.__name__
    if not end.ended or (failure and not refused) or len({began.table for began in looked}) < 2:  # noqa: PLR2004 - several
        return
    record.found(looked)
    if failure is not None:
        raise InvalidRequest(f"{looked[-1].table}: {failure.message}; {record.state.where()}")
    ahead = [began for began in looked if began.ahead]
    allowed = request.action == "stamp" or (request.action == "upgrade" and invocation.settings.newer_database_ok)
    if ahead and not allowed:
        raise UnknownRevision(
            f"{ahead[0].table} is at {joined(ahead[0].heads)}, which this package does not have: deploy the newer"
            f" backend; {record.state.where()}",
            revision=joined(ahead[0].heads),
        )
    current = joined(record.state.revisions)
    if request.action in GUARDED_ACTIONS and request.confirm != current:
        raise DowngradeRefused(f"{not_confirmed(request.confirm, current)}; {record.state.where()}")


def _may_have_more_tables(invocation: Invocation, record: RunRecord, session: Session) -> bool:
    """Return whether env.py seems to go through several schemas by itself, and may not have reached all of them."""
    elsewhere = {table for table in record.located() if table.schema != session.default_schema}
    return invocation.schema is None and bool(record.state.tables or elsewhere)


def _look(
    invocation: Invocation, record: RunRecord, session: Session, *, trial: str | None = None
) -> tuple[list[Began], ProcessEnd]:
    """Return where each version table is, and how env.py ended. This run of it changes nothing."""
    job = replace(_job(invocation, record, session), action="status", trial=trial)
    begun: list[Began] = []

    def receive(message: Message) -> None:
        if isinstance(message, Began):
            begun.append(message)

    end = supervise(job, session, receive)
    if _must_write(end):
        begun.clear()
        end = supervise(replace(job, may_write=True), session, receive)
    return begun, end


def _must_write(end: ProcessEnd) -> bool:
    """Return whether env.py wrote in a look. Then it runs again, and its writes are rolled back instead of refused."""
    return end.ended is not None and end.ended.refused_write and not end.out_of_time


def _differs(end: ProcessEnd) -> bool:
    """Return whether a revision did not repeat the interrupted run's statements. Then it begins again."""
    return end.ended is not None and end.ended.differs and not end.out_of_time


def _failure(end: ProcessEnd, attempt: Attempt, session: Session) -> Failure | None:
    failure = end.failure
    if failure is None:
        return None
    # After a restart of the server, env.py's own error may be anything. This query then raises the real cause.
    session.rows("SELECT 1")
    partly_committed = failure.partly_committed and not attempt.outlived
    revision = failure.revision
    if revision is None or revision.table in {None, attempt.begun[-1].table}:
        revision = attempt.running
    return replace(failure, revision=revision, partly_committed=partly_committed)


def _out_of_time(end: ProcessEnd, failure: Failure | None, *, left: float, before: float) -> bool:
    """Return whether time ended the attempt: the supervisor's, a statement's timeout, or a stop between revisions."""
    cut_off = failure is not None and failure.kind == "cancelled" and left <= before * _ALL_BUT_USED
    return end.out_of_time or cut_off or bool(end.ended and end.ended.stopped)


def _check_complete(
    invocation: Invocation, record: RunRecord, attempt: Attempt, failure: Failure | None, *, has_ended: bool
) -> None:
    """Raise `MigrationIncomplete` unless all was done before time was up.

    ``has_ended`` is False if env.py may have had further version tables to come to.
    """
    state = record.state
    left = record.left(attempt)
    if attempt.began is None:
        raise MigrationIncomplete("the run's deadline came before env.py had reached the version table; invoke again")
    if not left and failure is None and has_ended:
        return
    following = f", the next is {left[0].revision} ({left[0].description})" if left else ""
    # The TimeoutError of a revision that works in steps has its progress.
    progress = f" ({failure.message})" if failure and failure.error_type == TimeoutError.__name__ else ""
    raise MigrationIncomplete(
        f"stopped {invocation.deadline.reserve:.1f} s before the run's deadline: {len(state.done)} applied,"
        f" {len(left)} left{following}{progress}; {state.where()}; {_next_step(attempt, left)}",
        revision=left[0].revision if left else None,
        pending=[revision.revision for revision in left],
    )


def _next_step(attempt: Attempt, left: tuple[Revision, ...]) -> str:
    ids = {ran.revision.revision for _, ran in attempt.ran}
    rolled_back = sum(revision.revision in ids for revision in left)
    if not rolled_back or attempt.left([]) != left:
        return "invoke again to continue from there"
    return (
        f"env.py runs all revisions in one transaction, and the {rolled_back} that had run were rolled back: give the"
        ' function more time, or apply fewer revisions at once ("revision": "+1")'
    )


def _job(invocation: Invocation, record: RunRecord, session: Session) -> Job:
    """Return the job for the process that runs env.py.

    A further attempt begins where the last one ended. Without `done`, "+2" would take two more steps from there, and
    without `located`, a downgrade that had begun would be refused.
    """
    return Job(
        action=invocation.request.action,
        revision=invocation.request.revision,
        confirm=invocation.request.confirm,
        done=record.steps_done(),
        located=record.located(),
        schema=invocation.schema,
        settings=invocation.settings,
        credentials=session.credentials,
        server=session.server,
        lock_pid=session.pid,
        lock_keys=lock_keys(invocation.schema, session.default_schema),
        application_name=invocation.name,
        deadline=invocation.deadline,
        trial="stamp" if invocation.request.action == "check" and invocation.request.verify else None,
        pooled=session.pooled,
        encrypted=session.encrypted,
        checked_schemas=(*session.path, *([invocation.schema] if invocation.schema is not None else ())),
    )


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
