"""Runs env.py in its own process, and watches its messages, blockers, time and end.

The process must not outlive the function: when the function is killed, a pipe closes, the process exits, and
PostgreSQL finds its socket closed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambda_migrate.database.common import WORKER_LOCK_CLASS
from lambda_migrate.database.migration_lock import Holder, blockers
from lambda_migrate.env_py.messages import Connected, Ended, Failure, Job, Message, Next, Started
from lambda_migrate.invocation.errors import DatabaseUnavailable
from lambda_migrate.run.process import EnvPyProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection as Pipe

    from lambda_migrate.database.session import Session

# The interval in which the supervisor queries the sessions that block the revision. The query also keeps its own
# session from the idle timeout.
_SLOWEST_TICK_S = 1.0
_FASTEST_TICK_S = 0.05
_CANCEL_EVERY_S = 0.5
# The share of the reserve in which a process must end. The rest is for reading the version table and for the answer.
_ANSWER_SHARE = 0.5
_GONE_WITHIN_S = 5.0
_GONE_EVERY_S = 0.005
# Messages less than _FAST_S apart are fast. After _MANY_IN_A_ROW of them, the supervisor waits _GATHER_S for more.
_FAST_S = 0.01
_MANY_IN_A_ROW = 8
_GATHER_S = 0.01


@dataclass(frozen=True)
class ProcessEnd:
    """The end of the process of env.py.

    ``ended`` is its last message, or None if it was killed or ended without one. ``blockers`` are the sessions that
    last blocked its current revision.
    """

    ended: Ended | None
    exit_code: int
    out_of_time: bool
    blockers: tuple[Holder, ...]

    @property
    def failure(self) -> Failure | None:
        """The failure of env.py, or None if it succeeded or was stopped before it could report one."""
        if self.ended is not None:
            return self.ended.failure
        return None if self.out_of_time else self.death()

    def death(self) -> Failure:
        """Return the failure of a process that ended without a last message."""
        code = self.exit_code
        how = (
            f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended the process with exit code {code}"
        )
        return Failure("error", "ProcessEnded", f"the migration's code {how}")


def supervise(job: Job, session: Session | None, receive: Callable[[Message], None]) -> ProcessEnd:
    """Run env.py to its end or until time is up, and pass on its messages.

    When time is up, it cancels the running statement, again and again in case the revision catches the error. It kills
    a process that still does not end. The sessions have ended when it returns, so the version table is final.

    ``session`` is None for a job that needs no database.

    Raises:
        DatabaseUnavailable: the function's own session was lost, and with it the migration lock. The process was
            killed.
    """
    process = EnvPyProcess(job)
    watch = _Watch(job, session, process, receive)
    try:
        watch.attend()
        # The migration ends with the last message.
        process.join(job.deadline.patience(_GONE_WITHIN_S) if watch.ended else 0)
    finally:
        exit_code = process.end()
    if session is not None and not session.connection.closed:
        _end_sessions(session, watch.backends, job.application_name, job.deadline.patience(_GONE_WITHIN_S))
    return ProcessEnd(watch.ended, exit_code, watch.out_of_time, watch.blockers)


class _Watch:
    """Watches one process: the state between its start and its end."""

    def __init__(
        self,
        job: Job,
        session: Session | None,
        process: EnvPyProcess,
        receive: Callable[[Message], None],
    ) -> None:
        self.ended: Ended | None = None
        self.out_of_time = False
        self.blockers: tuple[Holder, ...] = ()
        self.backends: list[int] = []
        self._deadline = job.deadline
        self._name = job.application_name
        self._session = session
        self._process = process
        self._pipe = process.pipe
        self._receive = receive
        self._batches = _Batches(process.pipe)
        self._tick_s = max(_FASTEST_TICK_S, min(_SLOWEST_TICK_S, job.settings.lock_timeout_ms / 4000))
        self._next_tick = time.monotonic() + self._tick_s
        self._kill_at = math.inf

    def attend(self) -> None:
        """Pass on messages until the last one, the end of the process, or the moment to kill it."""
        while self.ended is None:
            now = time.monotonic()
            left = self._deadline.left()
            if left <= 0 and not self.out_of_time:
                self._stop(now)
            if now >= self._kill_at:
                return
            if now >= self._next_tick:
                self._tick(now)
            wake = self._next_tick if self.out_of_time else min(self._next_tick, now + left)
            if self._pipe.poll(max(0.0, wake - now)):
                if not self._take_message():
                    return
            elif not self._process.is_alive() and not self._pipe.poll():
                # A program that it started may still hold the pipe open.
                return

    def _stop(self, now: float) -> None:
        self.out_of_time = True
        self._kill_at = now + max(_CANCEL_EVERY_S, self._deadline.reserve * _ANSWER_SHARE)
        self._tick_s, self._next_tick = _CANCEL_EVERY_S, now

    def _tick(self, now: float) -> None:
        self._next_tick = now + self._tick_s
        if self._session is None:
            return
        if self.out_of_time:
            _do(self._session, "pg_cancel_backend", self.backends, self._name)
        else:
            self.blockers = blockers(self._session, self.backends) or self.blockers

    def _take_message(self) -> bool:
        """Take the next message; return False if the process ended, maybe in the middle of one."""
        try:
            message: Message = self._pipe.recv()
        except (EOFError, OSError):
            return False
        if isinstance(message, Ended):
            self.ended = message
            return True
        if isinstance(message, Connected):
            self.backends.append(message.pid)
        elif isinstance(message, (Started, Next)):
            self.blockers = ()
        self._receive(message)
        self._batches.after_a_message()
        return True


class _Batches:
    """Batches messages under load: waking the receiver costs the sender about 10 % of a revision's time."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._last = 0.0
        self._in_a_row = 0

    def after_a_message(self) -> None:
        """Sleep for a moment if messages come fast and no further one is there."""
        now = time.monotonic()
        self._in_a_row = self._in_a_row + 1 if now - self._last < _FAST_S else 0
        if self._in_a_row > _MANY_IN_A_ROW and not self._pipe.poll():
            time.sleep(_GATHER_S)
            now = time.monotonic()
        self._last = now


# If env.py uses another login, this session cannot end env.py's, which then ends with its process. The role is reset,
# because the role that the login acts as may lack the right that the login itself has.
_DO = "SET LOCAL ROLE NONE; SELECT {}(pid) FROM pg_stat_activity WHERE pid = ANY(%s) AND usename = session_user"
# Usually the sessions have already ended. pg_stat_get_activity(pid) is ten times cheaper than pg_stat_activity.
_LEFT = "SELECT FROM unnest(%s) AS own (pid), pg_stat_get_activity(own.pid)"
# A pooler keeps a server session when its client has gone, and may give it to the application. The session is still the
# migration's if it has the run's name or holds the lock that each session of a migration takes.
_OURS = (
    " {} (application_name = %s OR EXISTS (SELECT FROM pg_locks AS held WHERE held.pid = {}.pid"
    f" AND held.locktype = 'advisory' AND held.classid = {WORKER_LOCK_CLASS}))"
)


def _do(session: Session, function: str, pids: list[int], name: str) -> None:
    """Cancel or terminate these backends; behind a pooler, only those that are provably the migration's."""
    if session.pooled:
        session.rows(_DO.format(function) + _OURS.format("AND", "pg_stat_activity"), (pids, name))
    else:
        session.rows(_DO.format(function), (pids,))


def _end_sessions(session: Session, pids: list[int], name: str, seconds: float) -> None:
    """End the sessions of a dead process, and wait until the server has."""
    left, parameters = (_LEFT + _OURS.format("WHERE", "own"), (pids, name)) if session.pooled else (_LEFT, (pids,))
    until = time.monotonic() + seconds
    while pids and session.rows(left, parameters):
        _do(session, "pg_terminate_backend", pids, name)
        if time.monotonic() > until:
            raise DatabaseUnavailable("a session of the migration could not be ended; see pg_stat_activity")
        time.sleep(_GONE_EVERY_S)
