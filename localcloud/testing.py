"""Servers for one run of the tests: shared by its worker processes, and gone when the last of them is.

Every worker holds a shared lock for as long as it lives. Whoever gets that lock for itself alone knows that nobody
uses the servers any more. Normally that is the last worker; if the run was killed it is the watchdog, which waits for
the lock from the beginning; if that was killed too, as by a reboot, it is the next run of the tests.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from localcloud import daemon, emulator, locks, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

_POSTGRES = "postgres"
_EMULATOR = "emulator"
_WATCHDOG = "watchdog"


@contextmanager
def shared_run(root: Path, run: str) -> Iterator[Path]:
    """Give the folder of the test run named `run`, which this process uses until the end of the context."""
    directory = root / ".local" / "test" / run
    lock = directory.with_suffix(".lock")
    for other in lock.parent.glob("*.lock"):
        if other != lock:
            _remove_if_unused(root, other)
    descriptor = locks.share(lock)
    try:
        _watch(root, lock)
        yield directory
    finally:
        os.close(descriptor)
        _remove_if_unused(root, lock)


def start_postgres(root: Path, run: Path) -> postgres.Server:
    """Start the run's PostgreSQL, or give the one that another worker started."""
    return postgres.start(root, run / _POSTGRES, durable=False)


def start_emulator(root: Path, run: Path) -> emulator.Emulator:
    """Start the run's emulator, or give the one that another worker started."""
    return emulator.start(root, run / _EMULATOR)


def _remove_if_unused(root: Path, lock: Path) -> None:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # somebody else has just done it
    try:
        if locks.try_exclusive(descriptor):
            _remove(root, lock)
    finally:
        os.close(descriptor)


def _remove(root: Path, lock: Path) -> None:
    """Remove a run's servers; call it with its lock held alone."""
    directory = lock.with_suffix("")
    emulator.remove(directory / _EMULATOR)
    postgres.remove(root, directory / _POSTGRES)
    shutil.rmtree(directory, ignore_errors=True)
    lock.unlink(missing_ok=True)


def _watch(root: Path, lock: Path) -> None:
    watchdog = daemon.Daemon("The watchdog of the tests", lock.with_suffix("") / _WATCHDOG)
    with locks.exclusive(watchdog.guard):
        if not daemon.is_running(watchdog):
            command = [sys.executable, "-m", "localcloud.testing", str(root), str(lock)]
            environment = {"PATH": os.defpath, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
            daemon.launch(watchdog, command, environment, None)


def _main(root: Path, lock: Path) -> None:
    with locks.exclusive(lock):
        _remove(root, lock)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
