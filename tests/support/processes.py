"""Commands that a test starts, can interrupt, and always ends."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, AnyStr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import Popen


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT reach the commands that are started inside the context.

    A shell without job control ignores SIGINT in what it runs with ``&``, and child processes inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def killing(process: Popen[AnyStr]) -> Iterator[Popen[AnyStr]]:
    """Kill the process at the end of the context if it still runs, and close its pipes.

    Otherwise the process of a failed test outlives it, and Python's ResourceWarning fails a later test.
    """
    with process:
        try:
            yield process
        finally:
            process.kill()
