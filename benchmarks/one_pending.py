"""How long does one pending revision take in a cold start, with histories of three lengths?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import functions, tools
from benchmarks.ground import execute, value
from benchmarks.histories import LAST_TABLE, changes, stamped
from benchmarks.measurement import OURS, Contestant, Effort, Goal, Outcome, interleaved
from benchmarks.suite import main

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.ground import Ground
    from benchmarks.histories import Change
    from localcloud.postgres import Database

QUESTION = "one_pending"

_NAIVE = "naive handler"
_BARE = "bare script, with bytecode"


def measure(ground: Ground, effort: Effort) -> Outcome:
    """Measure all contestants, and compare them with the goals."""
    contestants: list[Contestant] = []
    for size in effort.sizes:
        history = changes(size)
        name = str(size)
        for contestant, deployed in (
            (OURS, functions.our_function(ground, functions.ours(ground, name, history), _database(ground, size, 0))),
            (
                _NAIVE,
                functions.naive_function(ground, functions.naive(ground, name, history), _database(ground, size, 1)),
            ),
            (_BARE, functions.bare_function(ground, functions.bare(ground, name, history), _database(ground, size, 2))),
        ):
            database = ground.made[deployed.environment["DB_SECRET_ID"]]
            reset = (*stamped(history[-2]), f"DROP TABLE IF EXISTS {LAST_TABLE}")
            # A slow contestant without a goal is measured once.
            once = contestant == _NAIVE and size > effort.long
            contestants.append(replace(_contestant(_case(size), contestant, deployed.cold, database, reset), once=once))
        if size == effort.long:
            contestants += _tools(ground, size, history)
    measured = interleaved(contestants, effort.rounds)
    long = _case(effort.long)
    goals = (
        *(
            Goal(
                f"cold at {size:,} revisions, to the bare script with bytecode",
                measured.ratio((_case(size), OURS), (_case(size), _BARE)),
                1.6,
            )
            for size in effort.sizes
        ),
        Goal(
            f"cold at {effort.long:,} revisions, to the naive handler",
            measured.ratio((long, OURS), (long, _NAIVE)),
            0.35,
        ),
        Goal(
            f"cold at {effort.longest:,} revisions, to itself at {effort.short:,}",
            measured.ratio((_case(effort.longest), OURS), (_case(effort.short), OURS)),
            1.3,
        ),
    )
    return Outcome(
        QUESTION,
        "One pending revision, cold",
        measured.rows(),
        goals,
        (
            "Functions: from the start of the process to the response. Commands: from start to end.",
            "Commands get the address as an argument or variable, and have bytecode. Functions read it from a secret.",
        ),
    )


def _case(size: int) -> str:
    return f"{size:,} revisions"


def _database(ground: Ground, size: int, number: int) -> Database:
    return ground.database(f"pending_{size}_{number}")


def _tools(ground: Ground, size: int, history: Sequence[Change]) -> list[Contestant]:
    contestants = []
    for name, (tool, database) in tools.tools(ground, str(size), history).items():
        tools.bring_to_head(tool)
        contestants.append(_contestant(_case(size), name, tool.run, database, tools.forget_last(name, history)))
    return contestants


def _contestant(
    case: str, name: str, run: Callable[[], float], database: Database, reset: tuple[str, ...]
) -> Contestant:
    def checked() -> float:
        took = run()
        if value(database, f"SELECT to_regclass('{LAST_TABLE}')::text") is None:
            raise RuntimeError(f"{name} reported success, but its database lacks the last table")
        return took

    return Contestant(case, name, checked, lambda: execute(database, *reset))


if __name__ == "__main__":
    main(measure)
