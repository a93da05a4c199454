"""How much time is left before Lambda kills the function, and what that allows."""

from __future__ import annotations

import time
from dataclasses import dataclass


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

    def until(self, seconds: float) -> Deadline:
        """The nearer of this deadline and the one that many seconds from now, for a step with a budget of its own."""
        return Deadline(at=min(self.at - self.reserve, time.monotonic() + seconds))
