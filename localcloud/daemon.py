"""Processes that outlive the command that started them.

A daemon inherits a locked file and so holds that lock for exactly as long as it, or a child it forked, lives. That
makes the question "is it still running?" one for the kernel: a recorded process id alone may by now belong to a
stranger, after a reboot for instance.
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

    from localcloud.account import Account

_POLL_SECONDS = 0.02
_TAIL_LINES = 5

# The outer shell leaves at once, so that the daemon is nobody's child and never anybody's zombie. The inner one notes
# the process id in the lock file before it turns into the daemon, which keeps that file open and so locked: whoever
# finds the lock held also finds whom to stop, even if the command that started the daemon was killed half-way.
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
        """What the process wrote since its last start."""
        return self.directory / "server.log"

    @property
    def guard(self) -> Path:
        """The lock file to hold while starting or stopping the process."""
        return self.directory / "guard.lock"


def is_running(daemon: Daemon) -> bool:
    """Tell whether the process, or a child it forked, is alive."""
    if not daemon.lock.exists():
        return False
    descriptor = locks.open_lock(daemon.lock)
    try:
        return not locks.try_exclusive(descriptor)
    finally:
        os.close(descriptor)


def process_id(daemon: Daemon) -> int:
    """Give the process id of a running daemon; 0 in the instant between its start and its first step."""
    return int(daemon.lock.read_text().strip() or 0)


def launch(
    daemon: Daemon, command: Sequence[str | Path], environment: Mapping[str, str], account: Account | None
) -> None:
    """Start the command as a daemon; call it with the guard held and nothing running.

    Raises:
        LocalCloudError: it is running after all, or the system could not start it.

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
    except (OSError, subprocess.CalledProcessError) as error:
        raise LocalCloudError(f"{daemon.name} could not be started: {error}") from error
    finally:
        os.close(descriptor)


def wait_until(daemon: Daemon, is_ready: Callable[[], bool], timeout: float) -> bool:
    """Wait until the daemon is ready; False if it has ended instead.

    Raises:
        LocalCloudError: neither happened within `timeout` seconds.

    """
    deadline = time.monotonic() + timeout
    while True:
        # Asked in this order, a daemon that becomes ready and ends in between is not taken for one that is ready.
        if is_ready() and is_running(daemon):
            return True
        if not is_running(daemon):
            return False
        if time.monotonic() > deadline:
            raise LocalCloudError(f"{daemon.name} runs but is not ready after {timeout:.0f} s. {log_tail(daemon)}")
        time.sleep(_POLL_SECONDS)


def stop(daemon: Daemon, how: signal.Signals, timeout: float) -> None:
    """Ask the daemon to end and wait for it; after `timeout` seconds kill it. Nothing running is fine."""
    deadline = time.monotonic() + timeout
    asked = 0
    while is_running(daemon):
        process = process_id(daemon)
        # The daemon's own children go with it: a function must not outlive the cloud it runs in.
        group = _group(process)
        if process != asked:
            _send(process, how)
            asked = process
        while is_running(daemon) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if group:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        if time.monotonic() > deadline + timeout:
            raise LocalCloudError(f"{daemon.name} (process {process}) does not end; end it by hand.")


def log_tail(daemon: Daemon) -> str:
    """Give the end of the log, for an error message."""
    try:
        lines = daemon.log.read_text(errors="replace").split("\n")
    except OSError:
        lines = []
    text = " | ".join([line.strip() for line in lines if line.strip()][-_TAIL_LINES:])
    return f"Its log, {daemon.log}, ends: {text or '(nothing)'}"


def _group(process: int) -> int:
    with suppress(ProcessLookupError):
        return os.getpgid(process) if process else 0
    return 0


def _send(process: int, how: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if process:
            os.kill(process, how)
