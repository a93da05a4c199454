"""The deadline of an invocation, at which Lambda kills the function, and timeouts that respect it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Deadline:
    """A point in time after which nothing may be started. All values are seconds.

    ``at`` is on the clock of `time.monotonic`. Work stops ``reserve`` earlier, to end cleanly and to answer.
    """

    at: float
    reserve: float = 0.0

    @classmethod
    def after(cls, seconds: float, *, reserve: float = 0.0) -> Deadline:
        """Return the deadline that many seconds from now. The reserve is at most half of the time."""
        return cls(at=time.monotonic() + seconds, reserve=min(reserve, seconds / 2))

    def left(self) -> float:
        """Return the seconds until work must stop, without the reserve, or 0 if it must stop now."""
        return max(0.0, self.at - self.reserve - time.monotonic())

    def patience(self, most: float) -> float:
        """Return the seconds to wait for one answer that may never come, also during the reserve.

        It is at most half of the time until Lambda kills the function. So after any number of waits, time is left to
        report that no answer came.
        """
        return min(most, max(0.05, (self.at - time.monotonic()) / 2))

    def until(self, seconds: float) -> Deadline:
        """Return the nearer of this deadline and the one that many seconds from now, for a step with its own budget."""
        return Deadline(at=min(self.at - self.reserve, time.monotonic() + seconds))


def within(seconds: float, work: Callable[[], _Answer]) -> _Answer:
    """Return the answer of work without its own timeout, such as the resolution of a host name.

    Raises:
        TimeoutError: no answer came in time. The thread continues, and its answer is ignored.
    """
    answers: list[_Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(work())
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:.1f} s")
    return answers[0]
