"""The fork server: a Python process that loads the backend's libraries, and runs env.py or forks for each run of it.

It is a program of its own, so nothing that the function has loaded, read or opened is in it: neither a library nor a
password. It sees the backend's libraries, and those of the Python that runs it, such as Lambda's own boto3.

Its arguments are a JSON object: ``control`` is the descriptor of its socket, ``path`` the future `sys.path`, and
``root``, ``config`` and ``driver`` are settings. For each run, the socket brings `FORK` or `RUN` and two descriptors:
the run's pipe and its lifeline. `RUN` turns the server itself into the process of env.py, which saves a fork. After
`FORK` it answers with two numbers: the process id, and the exit code once the process has ended. The server keeps the
process id reserved until it receives the next byte.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lambda_migrate.env_py.messages import RUN, Ended, Failure
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.redaction import conceal, one_line
from lambda_migrate.invocation.settings import Settings

if TYPE_CHECKING:
    from lambda_migrate.env_py.messages import Job

# Python before 3.13 collects garbage after each 700 new objects, of which SQLAlchemy makes more for a revision than are
# ever garbage.
_NEW_OBJECTS = 10_000


def main() -> NoReturn:
    """Load the backend's libraries, and run or fork until the function closes the socket or dies."""
    start = json.loads(sys.argv[1])
    sys.path[:] = start["path"]
    sys.argv[:] = ["alembic"]
    control = socket.socket(fileno=start["control"])
    gc.disable()
    broken = _load(start)
    # Collecting what every run inherits would only copy its pages.
    gc.freeze()
    while True:
        request, descriptors = _request(control)
        if not request:
            os._exit(0)
        pid = 0 if request == RUN else os.fork()
        if pid == 0:
            control.close()
            _run(descriptors[0], descriptors[1], broken)
        for descriptor in descriptors:
            os.close(descriptor)
        _attend(pid, control)


def _request(control: socket.socket) -> tuple[bytes, list[int]]:
    with suppress(OSError):
        request, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        return request, descriptors
    return b"", []


def _load(start: dict[str, str]) -> str | None:
    """Load what every run needs. If it cannot be loaded, return why."""
    root, config = Path(start["root"]), Path(start["config"])
    try:
        from lambda_migrate.env_py import preload, run_env_py  # noqa: F401, PLC0415 - the backend's libraries

        preload.preload(Settings("", "", package_root=root, alembic_config=config, driver=start["driver"]))
    except BaseException as error:  # noqa: BLE001 - any error of a library
        return f"the backend's libraries cannot be loaded: {type(error).__name__}: {one_line(error)}"
    return None


def _attend(pid: int, control: socket.socket) -> None:
    """Report a process and its end. If the function has died, its lifeline ends the process, too."""
    with suppress(OSError):
        control.send(b"%d" % pid)
        # Not reaped yet: the function may still end the process group by its number.
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None  # noqa: S101 - without WNOHANG
        control.send(b"%d" % (ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status))
        control.recv(1)
    os.waitpid(pid, 0)


def _run(pipe: int, lifeline: int, broken: str | None) -> NoReturn:
    """Run env.py in this process, and end the process."""
    code = 1
    try:
        gc.enable()
        gc.set_threshold(_NEW_OBJECTS)
        # Its own process group, so that programs that a revision starts end with it.
        os.setpgid(0, 0)
        threading.Thread(target=_die_with_function, args=(lifeline,), daemon=True).start()
        connection = Connection(pipe)
        job: Job = connection.recv()
        conceal(job.credentials.password)
        if broken is not None:
            connection.send(Ended(Failure("refused", ConfigurationError.__name__, broken)))
        else:
            from lambda_migrate.env_py.run_env_py import run  # noqa: PLC0415 - loaded before the fork

            run(job, connection.send)
        code = 0
    finally:
        # Exit functions are no part of the migration, and some wait for a server or a thread.
        os._exit(code)


def _die_with_function(lifeline: int) -> None:
    os.read(lifeline, 1)  # returns only when the function has closed the other end, or died
    os.killpg(0, signal.SIGKILL)
