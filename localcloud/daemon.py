"""Processes that outlive the command that started them.

A daemon inherits a locked file. So it holds the lock exactly as long as it, or a child that it forked, lives. The lock
shows whether the daemon runs. A recorded process id does not: after a reboot it may belong to another program.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localcloud import locks
from localcloud.errors import LocalCloudError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from localcloud.account import UnixAccount

_POLL_SECONDS = 0.02
_NOTE_SECONDS = 5.0
_TAIL_LINES = 5

# The outer shell exits at once, so that the daemon has no parent and never becomes a zombie. The inner shell writes its
# process id to the lock file and then becomes the daemon. So a held lock always comes with the id of the process to
# stop, even if the command that started the daemon was killed in between.
_DETACH = """exec 3<&0; /bin/sh -c 'echo $$ >&3 && exec "$@" </dev/null' sh "$@" &"""


@dataclass(frozen=True)
class Daemon:
    """A process known by the folder that holds its lock and its log."""

    name: str
    directory: Path

    @property
    def lock(self) -> Path:
        """The file that the process holds locked, with its process id in it."""
        return self.directory / "running.lock"

    @property
    def log(self) -> Path:
        """The process's output since its last start."""
        return self.directory / "server.log"

    @property
    def guard(self) -> Path:
        """The lock file to hold while starting or stopping the process."""
        return self.directory / "guard.lock"


def is_running(daemon: Daemon) -> bool:
    """Return whether the process, or a child it forked, is alive."""
    if not daemon.lock.exists():
        return False
    descriptor = locks.open_lock(daemon.lock)
    try:
        return not locks.try_exclusive(descriptor)
    finally:
        os.close(descriptor)


def process_id(daemon: Daemon) -> int:
    """Return the process id of a running daemon."""
    deadline = time.monotonic() + _NOTE_SECONDS
    # A daemon that has just started writes its id in the next moment.
    while not (note := daemon.lock.read_text(encoding="ascii").strip()):
        if time.monotonic() > deadline:
            raise LocalCloudError(f"{daemon.name} left no process id in {daemon.lock}; end it by hand.")
        time.sleep(_POLL_SECONDS)
    return int(note)


def launch(
    daemon: Daemon, command: Sequence[str | Path], environment: Mapping[str, str], account: UnixAccount | None
) -> None:
    """Start the command as a daemon. The caller holds the guard, and the daemon does not run.

    Raises:
        LocalCloudError: the daemon runs.
        OSError: the system could not start it.

    """
    descriptor = locks.open_lock(daemon.lock)
    try:
        if not locks.try_exclusive(descriptor):
            raise LocalCloudError(f"{daemon.name} is still running (process {process_id(daemon)}); stop that first.")
        os.truncate(descriptor, 0)
        with daemon.log.open("wb") as log:
            subprocess.run(
                ["/bin/sh", "-c", _DETACH, "sh", *command],
                stdin=descriptor,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd="/",  # the account may not be allowed into the caller's folder
                start_new_session=True,
                check=True,
                **(account.as_process() if account else {}),
            )
    finally:
        os.close(descriptor)


def wait_until_ready(daemon: Daemon, obstacle: Callable[[], str | None], timeout: float) -> bool:
    """Wait until the daemon is ready and return True, or return False if it has ended.

    Args:
        daemon: the process.
        obstacle: returns the reason why it is not ready, or None if it is.
        timeout: seconds to wait.

    Raises:
        LocalCloudError: it neither got ready nor ended in time.

    """
    deadline = time.monotonic() + timeout
    while (reason := obstacle()) is not None and is_running(daemon):
        if time.monotonic() > deadline:
            raise LocalCloudError(
                f"{daemon.name} (process {process_id(daemon)}) runs but is not ready after {timeout:.0f} s: "
                f"{' '.join(reason.split())}; stop it and try again. {log_tail(daemon)}"
            )
        time.sleep(_POLL_SECONDS)
    return is_running(daemon)


def stop(daemon: Daemon, how: signal.Signals, timeout: float) -> None:
    """Send the daemon a signal, and kill it after `timeout` seconds. Do nothing if it does not run.

    Raises:
        LocalCloudError: it runs even then.

    """
    if not is_running(daemon):
        return
    process = process_id(daemon)
    # It may be ending now. macOS refuses to signal a group of ended processes.
    with suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(process)
        os.kill(process, how)
        _ended(daemon, timeout)
        # Children included: a function must not outlive the local cloud.
        os.killpg(group, signal.SIGKILL)
    if not _ended(daemon, timeout):
        raise LocalCloudError(f"{daemon.name} (process {process}) does not end, not even when killed.")


def log_tail(daemon: Daemon) -> str:
    """Return the end of the log, for an error message."""
    try:
        lines = daemon.log.read_text(errors="replace").split("\n")
    except OSError:
        lines = []
    text = " | ".join([line.strip() for line in lines if line.strip()][-_TAIL_LINES:])
    return f"Its log, {daemon.log}, ends: {text or '(nothing)'}"


def _ended(daemon: Daemon, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while is_running(daemon):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
