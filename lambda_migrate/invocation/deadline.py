"""How much time is left before Lambda kills the function, and what that allows."""

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

    ``at`` is on the clock of `time.monotonic`; ``reserve`` is kept back from it to stop cleanly and to answer.
    """

    at: float
    reserve: float = 0.0

    @classmethod
    def after(cls, seconds: float, *, reserve: float = 0.0) -> Deadline:
        """The deadline that many seconds from now. A reserve never takes more than half of the time there is."""
        return cls(at=time.monotonic() + seconds, reserve=min(reserve, seconds / 2))

    def left(self) -> float:
        """Seconds until work must stop, the reserve already taken off; 0 when it is time."""
        return max(0.0, self.at - self.reserve - time.monotonic())

    def patience(self, most: float) -> float:
        """How long to wait for one answer that may never come, also when the reserve is being used up.

        Half of what is left until Lambda kills the function: however often nothing comes, time is left to say so.
        """
        return min(most, max(0.05, (self.at - time.monotonic()) / 2))

    def until(self, seconds: float) -> Deadline:
        """The nearer of this deadline and the one that many seconds from now, for a step with a budget of its own."""
        return Deadline(at=min(self.at - self.reserve, time.monotonic() + seconds))


def within(seconds: float, work: Callable[[], _Answer]) -> _Answer:
    """The answer of something that cannot be told how long to take, such as the resolving of a name.

    Raises:
        TimeoutError: it did not come. The thread that waits for it is left behind; nobody looks at its answer.
    """
    answers: list[_Answer] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            answers.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer was wanted
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:.1f} s")
    return answers[0]
