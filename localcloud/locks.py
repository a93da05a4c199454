"""Locks between processes: the kernel drops them when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock file `path`, then hold it; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """Open the lock file `path`, unlocked; each call gives a descriptor that locks against all others."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_exclusive(descriptor: int) -> bool:
    """Lock the descriptor of a lock file; False if somebody else holds it in any way."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share(path: Path) -> int:
    """Wait until nobody holds the lock file `path` alone, then hold it beside others; give its descriptor to close.

    Unlike other lock files, this one may be removed by whoever holds it alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = open_lock(path)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        # A file removed while we waited locks against nobody who comes later.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)
