"""Waiting for another process or thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Found = TypeVar("_Found")


def eventually(look: Callable[[], _Found], *, within_s: float = 120, every_s: float = 0.05, of: str = "") -> _Found:
    """Return the first true value that ``look`` returns.

    Fail after ``within_s``. The default is long, because a busy machine is slow.
    """
    until = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < until, f"not seen within {within_s} s: {of or look}"
        time.sleep(every_s)
    return found
