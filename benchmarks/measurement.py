"""Rounds, and what is made of them: medians, ratios and goals."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OURS = "this function"


@dataclass(frozen=True)
class Effort:
    """How much to measure: odd rounds, so that the median is one of them, and histories of so many revisions."""

    rounds: int = 7
    short: int = 14
    long: int = 1000
    longest: int = 5000

    @property
    def sizes(self) -> tuple[int, ...]:
        """The lengths of history, each once."""
        return tuple(dict.fromkeys((self.short, self.long, self.longest)))


FULL = Effort()
SMALLEST = Effort(rounds=1, short=3, long=3, longest=3)


def _nothing() -> None:
    """What most contestants need before a round."""


@dataclass(frozen=True)
class Contestant:
    """Who takes part in a case. ``run`` is one round and gives its value; ``prepare`` comes before, unmeasured.

    ``once`` is for who is so slow that one round tells enough.
    """

    case: str
    name: str
    run: Callable[[], float]
    prepare: Callable[[], object] = _nothing
    once: bool = False


@dataclass(frozen=True)
class Row:
    """One contestant's values in a case, round by round. ``ratio`` is to ours, the median of the rounds' ratios."""

    case: str
    contestant: str
    unit: str
    values: tuple[float, ...]
    ratio: float | None

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Goal:
    """A promise and how it came out: ``value`` is met when it is at most ``limit``. ``unit`` "x" is a ratio."""

    text: str
    value: float
    limit: float
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether the promise is kept, to the two decimals shown: one statement in a whole run counts for nothing."""
        return round(self.value, 2) <= self.limit


@dataclass(frozen=True)
class Outcome:
    """The answer to a question. ``notes`` are what a reader of the table must know."""

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
        """The rows of a table, in the order of the contestants."""
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
        """How many times the other's value one has: the median over the rounds that both were in.

        In a round both saw the same machine, which over the rounds may have been busier or not.
        """
        return statistics.median(a / b for a, b in zip(self.values[one], self.values[other], strict=False))

    def median(self, one: tuple[str, str]) -> float:
        """The median of one contestant."""
        return statistics.median(self.values[one])


def interleaved(contestants: Sequence[Contestant], rounds: int, unit: str = "s", *, warm_up: bool = True) -> Measured:
    """Let all take their turn in each round, so that what slows the machine down for a while slows all alike.

    With more than one round there is one before the first that does not count: it fills the caches. What does not
    depend on them needs no such ``warm_up``.
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
