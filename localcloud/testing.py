"""Servers for one run of the tests. Its worker processes share them, and the last worker stops them.

Each worker holds a shared lock as long as it lives. A process that gets this lock alone removes the servers, because
nobody uses them. Usually that is the last worker. If the run was killed, it is the watchdog, which waits for the lock
from the start. If the watchdog was killed too, for instance by a reboot, it is the next run of the tests.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from localcloud import binaries, daemon, emulator, locks, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

# Folders in the run's folder. Each server has a folder of its name in one of them.
_POSTGRES = "postgres"
_EMULATORS = "emulators"
_WATCHDOG = "watchdog"

_SHARED = "shared"

# A database is 300 files, and a package 700. To make and remove them on a disk takes several times as much processor
# time as in memory.
_MEMORY = Path("/dev/shm")  # noqa: S108 - only mkdtemp and pytest make something there
_MEMORY_NEEDED = 8 << 30


def memory() -> Path | None:
    """Return a folder in memory for the files of tests, if this machine has one that is large enough."""
    if not os.access(_MEMORY, os.W_OK) or os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
        return None
    return _MEMORY if shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED else None


@contextmanager
def shared_run(root: Path, run: str) -> Iterator[Path]:
    """Return the folder of the test run named `run`, which this process uses until the end of the context."""
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


def start_postgres(
    root: Path, run: Path, name: str = _SHARED, *, version: int = binaries.DEFAULT_VERSION
) -> postgres.Server:
    """Start the run's PostgreSQL of that name, or return the one that runs."""
    return postgres.start(root, clusters(run) / name, durable=False, version=version)


def start_emulator(root: Path, run: Path, name: str = _SHARED) -> emulator.Emulator:
    """Start the run's emulator of that name, or return the one that runs."""
    return emulator.start(root, run / _EMULATORS / name)


def clusters(run: Path) -> Path:
    """Return the folder of the run's PostgreSQL servers, a link into memory if this machine has enough of it."""
    folder = run / _POSTGRES
    with locks.exclusive(run / "postgres.lock"):
        if not folder.exists() and (parent := memory()):
            in_memory = Path(tempfile.mkdtemp(prefix="migrate-test-", dir=parent))
            in_memory.chmod(0o711)
            folder.symlink_to(in_memory)
    return folder


def _remove_if_unused(root: Path, lock: Path) -> None:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # another process has just removed it
    try:
        if locks.try_exclusive(descriptor):
            _remove(root, lock)
    finally:
        os.close(descriptor)


def _remove(root: Path, lock: Path) -> None:
    """Remove a run's servers. The caller holds its lock alone."""
    directory = lock.with_suffix("")
    for folder in (directory / _EMULATORS).glob("*"):
        emulator.remove(folder)
    for folder in (directory / _POSTGRES).glob("*"):
        postgres.remove(root, folder)
    shutil.rmtree((directory / _POSTGRES).resolve(), ignore_errors=True)
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
