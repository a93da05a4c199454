"""The attempts of one run, and the sessions and the migration lock that they need."""

from __future__ import annotations

import logging
import random
import time
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_migrate.database.migration_lock import migration_lock
from lambda_migrate.database.open_session import is_rotated, open_session
from lambda_migrate.database.session import find_untrusted
from lambda_migrate.database.untrusted import refuse
from lambda_migrate.env_py.messages import READ_ONLY_ACTIONS, Began
from lambda_migrate.invocation.errors import (
    AuthenticationFailed,
    ConfigurationError,
    DatabaseUnavailable,
    LockTimeout,
    MigrationError,
    Unexpected,
)
from lambda_migrate.invocation.loading import load
from lambda_migrate.invocation.result import joined, merged
from lambda_migrate.invocation.telemetry import log
from lambda_migrate.revisions import manifest
from lambda_migrate.run import up_to_date
from lambda_migrate.run.incomplete import check_complete, is_out_of_time
from lambda_migrate.run.inspection import inspect_tables, job_for, must_write
from lambda_migrate.run.outcome import TryAgain, error_of
from lambda_migrate.run.process import start_server
from lambda_migrate.run.run_record import RunRecord, log_untrusted
from lambda_migrate.run.several_tables import check_all_tables, concerns_all_tables, may_have_more_tables
from lambda_migrate.run.supervisor import supervise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from lambda_migrate.database.migration_lock import Lock
    from lambda_migrate.database.session import Session
    from lambda_migrate.env_py.messages import Failure
    from lambda_migrate.invocation.deadline import Deadline
    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import RunState, VersionTable
    from lambda_migrate.revisions.checkpoint import Checkpoint, NotedTable
    from lambda_migrate.run.run_record import Attempt
    from lambda_migrate.run.supervisor import ProcessEnd

_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 15.0
# Well within the server's idle_session_timeout for the session that holds the lock.
_PING_EVERY_S = 5.0
# The number of sessions that may fail before a run gives up. A password that has been rotated does not count.
_NEW_SESSIONS = 5


def migrate(invocation: Invocation, session: Session, *, preflight: bool = False) -> RunState:
    """Run env.py under the migration lock until the request is done, and return what was done.

    ``session`` is the first one to use, and is closed. With ``preflight``, the pending revisions are compared with the
    database before the first attempt.

    Raises:
        MigrationError: one of docs/contract.md#errors, with its ``state``; the database is at a revision boundary.
    """
    return _run(invocation, session, locked=True, preflight=preflight)


def inspect(invocation: Invocation, session: Session) -> RunState:
    """Run env.py to look at the database, without the lock and in sessions that cannot write.

    Raises:
        MigrationError: as for `migrate`.
    """
    return _run(invocation, session, locked=False)


def version_tables(invocation: Invocation, session: Session, *, trial: str | None = None) -> list[Began]:
    """Return a message for each version table that env.py reads, or none if env.py or the trial fails."""
    start_server(invocation.settings)
    begun, end = inspect_tables(invocation, RunRecord(invocation.schema), session, trial=trial)
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
    """Run with a session. After a temporary error, begin again with a new session while there is time."""
    deadline = invocation.deadline
    failures = 0
    while True:
        try:
            with closing(session), _lock(invocation, session, locked=locked) as lock:
                record.opened(session.server.database, lock.wait_ms if lock else 0)
                _with_session(invocation, record, session, lock, preflight=preflight)
                return
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


def _with_session(
    invocation: Invocation, record: RunRecord, session: Session, lock: Lock | None, *, preflight: bool
) -> None:
    """Run the rest of the request with one session."""
    # After an attempt, only env.py can show what another run has done.
    if lock is not None and lock.wait_ms and not record.state.attempts:
        done_by_another_run = up_to_date.state_after_another_run(invocation, session)
        if done_by_another_run is not None:
            record.is_up_to_date(done_by_another_run)
            return
    _check_trusted(invocation, session, first=not record.state.attempts)
    if preflight and not record.has_preflight:
        tables = _run_preflight(invocation, record, session)
        if tables and _are_done(tables, invocation.request.revision):
            record.found(tables)
            return
    _attempts(invocation, record, session)


def _run_preflight(invocation: Invocation, record: RunRecord, session: Session) -> list[Began]:
    """Compare the pending revisions with the database. Return the version tables if env.py had to show them.

    Raises:
        PreflightFailed: a revision would fail or block for too long, and the preflight is enforced.
    """
    tables: list[Began] = []

    def inspect_once() -> list[Began]:
        begun, end = inspect_tables(invocation, record, session)
        tables.extend(begun if end.failure is None else ())
        return begun

    record.preflight_done(load("lambda_migrate.run.preflight").before_upgrade(invocation, session, inspect_once))
    return tables


def _are_done(tables: Sequence[Began], revision: str) -> bool:
    return revision in {"head", "heads"} and not any(each.pending or each.ahead for each in tables)


def _lock(invocation: Invocation, session: Session, *, locked: bool) -> AbstractContextManager[Lock | None]:
    return (
        migration_lock(session, invocation.settings, invocation.deadline, invocation.schema)
        if locked
        else nullcontext()
    )


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
    if concerns_all_tables(invocation) and not record.state.attempts:
        check_all_tables(invocation, record, session)
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

    A checkpoint with several version tables needs an env.py that reaches exactly these tables. A read-only run of
    env.py shows that.
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
    looked, end = inspect_tables(invocation, record, session)
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
        TryAgain: the attempt failed for a temporary reason.
    """
    # The session of an earlier attempt may have been lost before the version table was read on it.
    record.settle(session)
    job = replace(job_for(invocation, record, session), output_lines=record.output_lines, checkpoint=checkpoint)
    attempt = record.begin(session.default_schema)
    before = invocation.deadline.left()
    end = supervise(job, session, attempt.receive)
    if must_write(end) or _differs(end):
        record.settle(session)
        job = replace(
            job_for(invocation, record, session),
            may_write=must_write(end),
            resumes=not _differs(end),
            output_lines=record.output_lines,
        )
        attempt = record.begin(session.default_schema)
        end = supervise(job, session, attempt.receive)
    record.settle(session)
    failure = _failure(end, attempt, session)
    if is_out_of_time(end, failure, left=invocation.deadline.left(), before=before):
        has_ended = bool(end.ended) or not may_have_more_tables(invocation, record, session)
        check_complete(invocation, record, attempt, failure, has_ended=has_ended)
    elif failure is not None:
        if job.action not in READ_ONLY_ACTIONS and may_have_more_tables(invocation, record, session):
            with suppress(DatabaseUnavailable):  # the revision's failure is reported, not this one
                record.found(inspect_tables(invocation, record, session)[0])
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
