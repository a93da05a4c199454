"""How much memory does a run need at its peak, with nothing to do and with a whole history?"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import functions
from benchmarks.ground import execute
from benchmarks.histories import VERSION_TABLE, changes, stamped
from benchmarks.measurement import OURS, Contestant, Effort, Goal, Measured, Outcome, interleaved
from benchmarks.processes import watched
from benchmarks.suite import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.functions import Deployed
    from benchmarks.ground import Ground

QUESTION = "memory"

_NAIVE = "naive handler"
_BARE = "bare script, with bytecode"
_HIGHEST = " (sum of each process's peak)"


def measure(ground: Ground, effort: Effort) -> Outcome:
    """Measure all contestants, and compare them with the goals."""
    if sys.platform != "linux":
        raise RuntimeError("memory is read from /proc, which only Linux has")
    history = changes(effort.long)
    nothing = f"nothing to do, {effort.long:,} revisions"
    applying = f"applying {effort.long:,} revisions"
    highest: dict[tuple[str, str], list[float]] = {}
    contestants: list[Contestant] = []
    for case, statements in (
        (nothing, stamped(history[-1])),
        (applying, ()),
    ):
        for number, (name, make, pack) in enumerate(
            (
                (OURS, functions.our_function, functions.ours),
                (_NAIVE, functions.naive_function, functions.naive),
                (_BARE, functions.bare_function, functions.bare),
            )
        ):
            package = pack(ground, str(effort.long), history)
            label = f"memory_{'nothing' if statements else 'applying'}_{number}"
            deployed = make(ground, package, ground.database(label))
            given = statements or ((VERSION_TABLE,) if name == _BARE else ())
            contestants.append(
                Contestant(
                    case,
                    name,
                    _round(deployed, highest.setdefault((case, name), [])),
                    partial(_begin, ground, label, given),
                    once=case == applying and name != OURS,
                )
            )
    measured = interleaved(contestants, effort.rounds, "MB", warm_up=False)
    upper = Measured(
        "MB",
        {(case, name + _HIGHEST): values[-effort.rounds :] for (case, name), values in highest.items() if name == OURS},
    )
    rows = [*measured.rows(), *upper.rows()]
    goals = (
        Goal(nothing, measured.median((nothing, OURS)), 64, "MB"),
        Goal(applying, measured.median((applying, OURS)), 120, "MB"),
    )
    return Outcome(
        QUESTION,
        "Peak memory of the function's processes",
        tuple(sorted(rows, key=lambda row: row.case != nothing)),
        goals,
        (
            "Memory as Lambda counts it: the runtime client's resident memory, and its child's unshared memory.",
            "From /proc, every few milliseconds of a cold invocation. A megabyte is 1,048,576 bytes, as Lambda counts.",
        ),
    )


def _begin(ground: Ground, label: str, statements: tuple[str, ...]) -> None:
    execute(ground.database(label), *statements)


def _round(deployed: Deployed, highest: list[float]) -> Callable[[], float]:
    def run() -> float:
        with deployed.start() as function, watched(function.pid) as peak:
            functions.succeeded(function.invoke(), function)
        highest.append(peak.highest)
        return peak.together

    return run


if __name__ == "__main__":
    main(measure)
