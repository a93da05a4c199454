"""Starts the process of env.py, and ends it.

The process is the fork server itself, or a fork of it. Usually only the first run in an execution environment needs
env.py, so the server becomes the process of that run: that saves the time and the memory of a fork. After a second run,
or one for a tenant, more will follow. Then the server keeps the libraries loaded, and forks for each run.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING

import lambda_migrate
from lambda_migrate.env_py.messages import FORGET, FORK, RUN

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from lambda_migrate.env_py.messages import Job
    from lambda_migrate.invocation.settings import Settings

# The function's own folder is on the path for the time of the import only.
_PROGRAM = "import sys; sys.path.insert(0, {root!r}); from lambda_migrate.env_py import fork_server; fork_server.main()"
_KILLED = -signal.SIGKILL
_LONGEST_REPORT = 16
_ENDED_EVERY_S = 0.002


@dataclass
class _Server:
    process: subprocess.Popen[bytes]
    control: socket.socket

    def close(self) -> None:
        self.control.close()
        self.process.kill()
        self.process.wait()


_server: _Server | None = None
_has_run = False


def start_server(settings: Settings) -> None:
    """Start the fork server unless it runs. It loads libraries while the caller does something else."""
    global _server  # noqa: PLW0603 - one at a time in each execution environment
    if _server is not None and _server.process.poll() is None:
        return
    if _server is not None:
        _server.close()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    start = {
        "control": theirs.fileno(),
        "path": backend_path(sys.path),
        "root": str(settings.package_root),
        "config": str(settings.alembic_config),
        "driver": settings.driver,
    }
    process = subprocess.Popen(  # noqa: S603 - this interpreter, with a program of ours
        [sys.executable, "-c", _PROGRAM.format(root=str(lambda_migrate.LIBRARIES.parent)), json.dumps(start)],
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    _server = _Server(process, ours)


def backend_path(path: list[str]) -> list[str]:
    """Return the `sys.path` of env.py's process: the backend's libraries, then those of Python and of Lambda."""
    function = {lambda_migrate.LIBRARIES.resolve(), lambda_migrate.LIBRARIES.parent.resolve()}
    pythons = [each for each in path if Path(each).resolve() not in function]
    return [str(lambda_migrate.BACKEND_LIBRARIES), *pythons, str(lambda_migrate.LAMBDAS_LIBRARIES)]


class EnvPyProcess:
    """The process of one run of env.py. ``pipe`` brings its messages. It dies if the function does."""

    pipe: Connection

    def __init__(self, job: Job) -> None:
        """Start it."""
        global _server, _has_run  # noqa: PLW0603 - see `start_server`
        start_server(job.settings)
        assert _server is not None  # noqa: S101 - it was started
        self._server = _server
        self._forked = _has_run or _is_one_of_many(job)
        _has_run = True
        if not self._forked:
            _server = None
        self._pid = None if self._forked else self._server.process.pid
        self._exit_code: int | None = None
        self.pipe, theirs = Pipe()
        lifeline, self._lifeline = os.pipe()
        # If the server or the process dies now, the caller sees the end of the process.
        with suppress(OSError):
            request = FORK if self._forked else RUN
            socket.send_fds(self._server.control, [request], [theirs.fileno(), lifeline])
            self.pipe.send(job)
        theirs.close()
        os.close(lifeline)

    def is_alive(self) -> bool:
        """Return whether it may still run."""
        return not self.join(0)

    def join(self, seconds: float) -> bool:
        """Wait for its end, and return whether it has ended."""
        until = time.monotonic() + seconds
        while self._exit_code is None and self._look(until):
            pass
        return self._exit_code is not None

    def end(self) -> int:
        """Kill the process and its children, if it still runs, and return its exit code."""
        self.join(0)
        if self._pid is None:
            # The server does not even fork. What it may still fork loses its lifeline.
            self._server.close()
        else:
            # Nobody has reaped it yet, so its number is still its own.
            for kill in (os.killpg, os.kill):
                with suppress(ProcessLookupError):
                    kill(self._pid, signal.SIGKILL)
        while not self.join(1):
            pass
        assert self._exit_code is not None  # noqa: S101 - it has ended
        if self._forked:
            with suppress(OSError):
                self._server.control.send(FORGET)
        else:
            self._server.close()
        os.close(self._lifeline)
        self.pipe.close()
        return self._exit_code

    def _look(self, until: float) -> bool:
        """Look for news of the process, and return whether there may be more before this moment."""
        return self._report(until) if self._forked else self._ended(until)

    def _ended(self, until: float) -> bool:
        ended = os.waitid(os.P_PID, self._server.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            self._exit_code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            return False
        left = until - time.monotonic()
        time.sleep(max(0.0, min(left, _ENDED_EVERY_S)))
        return left > 0

    def _report(self, until: float) -> bool:
        control = self._server.control
        try:
            poller = select.poll()
            poller.register(control, select.POLLIN)
            if not poller.poll(max(0.0, until - time.monotonic()) * 1000):
                return False
            report = control.recv(_LONGEST_REPORT)
        except (OSError, ValueError):  # closed
            report = b""
        if not report:
            # The server died. The next run starts another one, and this process loses its lifeline.
            self._server.close()
            self._exit_code = _KILLED
        elif self._pid is None:
            self._pid = int(report)
        else:
            self._exit_code = int(report)
        return True


def _is_one_of_many(job: Job) -> bool:
    """Return whether this execution environment will probably run env.py again.

    That is so if the run is for one of several targets, or only reads the tree, as the first of doctor's runs does.
    """
    of_several = job.schema is not None or job.settings.target_database is not None or job.settings.secret_first
    return of_several or job.server is None
