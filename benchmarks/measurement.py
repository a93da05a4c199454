"""Rounds, and the medians, ratios and goals computed from them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OURS = "this function"


@dataclass(frozen=True)
class Effort:
    """The amount of measurement. Rounds are odd, so that the median is one of them. Histories have these lengths."""

    rounds: int = 7
    short: int = 14
    long: int = 1000
    longest: int = 5000

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the lengths of history, each once."""
        return tuple(dict.fromkeys((self.short, self.long, self.longest)))


FULL = Effort()
SMALLEST = Effort(rounds=1, short=3, long=3, longest=3)


def _nothing() -> None:
    """Prepare nothing. Most contestants need nothing before a round."""


@dataclass(frozen=True)
class Contestant:
    """A contestant of a case. ``run`` is one round and returns its value. ``prepare`` runs before it, unmeasured.

    ``once`` is for a contestant that is so slow that one round is enough.
    """

    case: str
    name: str
    run: Callable[[], float]
    prepare: Callable[[], object] = _nothing
    once: bool = False


@dataclass(frozen=True)
class Row:
    """One contestant's values in a case, by round. ``ratio`` is its ratio to ours, the median over the rounds."""

    case: str
    contestant: str
    unit: str
    values: tuple[float, ...]
    ratio: float | None

    @property
    def median(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Goal:
    """A goal and its result. It is met if ``value`` is at most ``limit``. ``unit`` "x" is a ratio."""

    text: str
    value: float
    limit: float
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Return whether the rounded value meets the goal: one more statement in a whole run does not count."""
        return round(self.value, 2) <= self.limit


@dataclass(frozen=True)
class Outcome:
    """The answer to a question. ``notes`` are explanations for a reader of the table."""

    question: str
    title: str
    rows: tuple[Row, ...]
    goals: tuple[Goal, ...]
    notes: tuple[str, ...] = ()


@dataclass
class Measured:
    """The values of all contestants, by case and name."""

    unit: str
    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def rows(self) -> tuple[Row, ...]:
        """Return the rows of a table, in the order of the contestants."""
        return tuple(
            Row(
                case,
                name,
                self.unit,
                tuple(values),
                self.ratio((case, name), (case, OURS)) if (case, OURS) in self.values else None,
            )
            for (case, name), values in self.values.items()
        )

    def ratio(self, one: tuple[str, str], other: tuple[str, str]) -> float:
        """Return the ratio of two contestants: the median over the rounds of both.

        Within a round, both ran under the same load of the machine.
        """
        return statistics.median(a / b for a, b in zip(self.values[one], self.values[other], strict=False))

    def median(self, one: tuple[str, str]) -> float:
        """Return the median of one contestant."""
        return statistics.median(self.values[one])


def interleaved(contestants: Sequence[Contestant], rounds: int, unit: str = "s", *, warm_up: bool = True) -> Measured:
    """Run all contestants in each round, so that a slow phase of the machine affects all of them.

    If there is more than one round, an unmeasured round comes first and fills the caches. A case that does not depend
    on caches needs no ``warm_up``.
    """
    measured = Measured(unit)
    for number in range(-1 if warm_up and rounds > 1 else 0, rounds):
        for contestant in contestants:
            if contestant.once and number != 0:
                continue
            contestant.prepare()
            value = contestant.run()
            if number >= 0:
                measured.values.setdefault((contestant.case, contestant.name), []).append(value)
    return measured
