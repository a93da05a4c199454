"""Runs env.py in a process of its own and looks after it: its messages, its blockers, its time, its end.

The process is forked, so that it finds every module loaded that we have. It must not outlive us: when we are killed,
its end of a pipe tells it, it dies, and PostgreSQL sees its socket closed.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lambda_migrate.database.migration_lock import Holder, blockers
from lambda_migrate.env_py import run_env_py
from lambda_migrate.env_py.messages import Connected, Ended, Failure, Job, Message, Next, Started
from lambda_migrate.env_py.preload import preload
from lambda_migrate.invocation.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection as Pipe
    from multiprocessing.context import ForkProcess

    from lambda_migrate.database.session import Session


# How often the supervisor asks who blocks the revision; the same statement keeps its own session from idling out.
_SLOWEST_TICK_S = 1.0
_FASTEST_TICK_S = 0.05
_CANCEL_EVERY_S = 0.5
# What is left of the reserve for reading the version table and answering, after a process that would not end is killed.
_ANSWER_SHARE = 0.5
_GONE_WITHIN_S = 5.0
_NEW_OBJECTS = 10_000
_GONE_EVERY_S = 0.005
# Messages that come so soon after each other are fast, and after so many of them they are left to gather for so long.
_FAST_S = 0.01
_MANY_IN_A_ROW = 8
_GATHER_S = 0.01

_fork = multiprocessing.get_context("fork")


@dataclass
class Watch:
    """What was seen while a process ran."""

    ended: Ended | None = None
    exit_code: int | None = None
    out_of_time: bool = False
    blockers: tuple[Holder, ...] = ()
    backends: list[int] = field(default_factory=list)


def supervise(job: Job, session: Session | None, receive: Callable[[Message], None]) -> Watch:
    """Run env.py to its end or until time is up, passing on what it tells.

    When time is up the running statement is cancelled by the server, again and again in case the revision catches the
    error; a process that still does not end is killed, and its sessions are ended before this returns, so that what
    the version table says then is final.

    ``session`` is None for a job that needs no database.

    Raises:
        DatabaseUnavailable: our own session was lost, and with it the migration lock. The process was killed.
    """
    watch = Watch()
    preload(job.settings)
    ours, theirs = _fork.Pipe(duplex=False)
    lifeline, our_end = os.pipe()
    process = _fork.Process(target=_in_child, args=(job, session, theirs, ours, lifeline, our_end))
    process.start()
    theirs.close()
    os.close(lifeline)
    try:
        _attend(job, session, ours, process, receive, watch)
        # Whatever the application does at its exit, it has done its migration.
        process.join(job.deadline.patience(_GONE_WITHIN_S) if watch.ended else 0)
    finally:
        _kill(process.pid)
        process.join()
        os.close(our_end)
        ours.close()
        watch.exit_code = process.exitcode
    if session is not None and not session.connection.closed:
        _end_sessions(session, watch.backends, job.deadline.patience(_GONE_WITHIN_S))
    return watch


def _in_child(job: Job, session: Session | None, pipe: Pipe, theirs: Pipe, lifeline: int, their_end: int) -> None:
    theirs.close()
    os.close(their_end)
    # What is inherited stays: looking it over for garbage would only copy its pages. And Python before 3.13 looks again
    # for each 700 new objects, of which SQLAlchemy makes more for a revision than are ever garbage.
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)
    # The lock's connection is our parent's: were it open here too, the lock would outlive the parent. psycopg2 itself
    # does not touch a connection that another process has made.
    if session is not None:
        os.close(session.connection.fileno())
    # A group of its own, so that what a revision starts beside itself ends with it.
    os.setpgid(0, 0)
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    run_env_py.run(job, pipe.send)


def _die_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # returns only when nobody holds the other end any more
    os.killpg(0, signal.SIGKILL)


def _kill(pid: int | None) -> None:
    """End a child that was not waited for yet, and its whole group if it has come to having one."""
    assert pid is not None  # noqa: S101 - it was started
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _attend(  # noqa: C901 - one loop, one way through it
    job: Job,
    session: Session | None,
    pipe: Pipe,
    process: ForkProcess,
    receive: Callable[[Message], None],
    watch: Watch,
) -> None:
    tick = max(_FASTEST_TICK_S, min(_SLOWEST_TICK_S, job.settings.lock_timeout_ms / 4000))
    next_tick = time.monotonic() + tick
    kill_at = math.inf
    gather = _Gather()
    while True:
        now = time.monotonic()
        left = job.deadline.left()
        if left <= 0 and not watch.out_of_time:
            watch.out_of_time = True
            kill_at = now + max(_CANCEL_EVERY_S, job.deadline.reserve * _ANSWER_SHARE)
            tick, next_tick = _CANCEL_EVERY_S, now
        if now >= kill_at:
            return
        if now >= next_tick:
            next_tick = now + tick
            _tick(session, watch)
        wake = next_tick if watch.out_of_time else min(next_tick, now + left)
        if not pipe.poll(max(0.0, wake - now)):
            if process.is_alive() or pipe.poll():
                continue
            # Something that it had started has the pipe open still.
            return
        message = _received(pipe)
        if message is None:
            return
        if isinstance(message, Connected):
            watch.backends.append(message.pid)
        elif isinstance(message, (Started, Next)):
            watch.blockers = ()
        elif isinstance(message, Ended):
            watch.ended = message
            return
        receive(message)
        gather.after_a_message(pipe)


@dataclass
class _Gather:
    """Lets messages gather when many come: who sends one pays for waking who waits for it, a tenth of a revision."""

    last: float = 0.0
    in_a_row: int = 0

    def after_a_message(self, pipe: Pipe) -> None:
        """Come back a little later, if they come so fast."""
        now = time.monotonic()
        self.in_a_row = self.in_a_row + 1 if now - self.last < _FAST_S else 0
        if self.in_a_row > _MANY_IN_A_ROW and not pipe.poll():
            time.sleep(_GATHER_S)
            now = time.monotonic()
        self.last = now


def _received(pipe: Pipe) -> Message | None:
    """The next message; None when the process was ended, maybe in the middle of one."""
    try:
        message: Message = pipe.recv()
    except (EOFError, OSError):
        return None
    return message


def _tick(session: Session | None, watch: Watch) -> None:
    if session is None:
        return
    if watch.out_of_time:
        session.rows(_DO.format("pg_cancel_backend"), (watch.backends,))
    else:
        watch.blockers = blockers(session, watch.backends) or watch.blockers


# Another login's session, where env.py has one of its own, may not be ended by us: it ends with its process. Our login
# may act as another role, which has no such right.
_DO = "SET LOCAL ROLE NONE; SELECT {}(pid) FROM pg_stat_activity WHERE pid = ANY(%s) AND usename = session_user"


def _end_sessions(session: Session, pids: list[int], seconds: float) -> None:
    """Make sure that no session of a dead process still works, and wait until none does."""
    until = time.monotonic() + seconds
    # Mostly they have ended with it, and the function is a tenth of the work of the view that is made of it.
    while pids and session.rows("SELECT FROM unnest(%s) AS pid, pg_stat_get_activity(pid)", (pids,)):
        session.rows(_DO.format("pg_terminate_backend"), (pids,))
        if time.monotonic() > until:
            raise DatabaseUnavailable("a session of the migration could not be ended; see pg_stat_activity")
        time.sleep(_GONE_EVERY_S)


def died(watch: Watch) -> Failure:
    """The failure of a process that ended without telling how."""
    code = watch.exit_code or 0
    how = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended the process with exit code {code}"
    return Failure("error", "ProcessEnded", f"the migration's code {how}")
