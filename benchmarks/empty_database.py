"""How long does an empty database need for a whole history, locally and with 2 ms latency? How many round trips?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import functions, tools
from benchmarks.ground import execute, value
from benchmarks.histories import LAST_TABLE, VERSION_TABLE, changes
from benchmarks.measurement import OURS, Contestant, Effort, Goal, Measured, Outcome, interleaved
from benchmarks.network import Network
from benchmarks.suite import main

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.ground import Ground
    from benchmarks.histories import Change
    from localcloud.postgres import Database

QUESTION = "empty_database"

_NAIVE = "naive handler"
_BARE = "bare script, same transactions"
_SLOW = {_NAIVE, tools.YOYO}
_LATENCY_S = 0.002
# With 2 ms a round trip, a part of the history shows the same ratio in less time.
_PART = 0.3


def measure(ground: Ground, effort: Effort) -> Outcome:
    """Measure all contestants, and compare them with the goals."""
    local = f"{effort.long:,} revisions"
    part = max(round(effort.long * _PART), 2)
    distant = f"{part:,} revisions at 2 ms latency"
    counted = "round trips a revision"
    in_all = "round trips a revision, all connections"
    whole = _Contest(ground, changes(effort.long))
    times = interleaved(
        [Contestant(local, name, whole.timed(name), once=name in _SLOW) for name in whole.runs], effort.rounds
    )
    few = _Contest(ground, changes(part))
    contenders = (OURS, tools.ALEMBIC, tools.DBMATE, _BARE)
    far = interleaved(
        [
            Contestant(distant, name, few.timed(name, _LATENCY_S), once=name not in {OURS, tools.ALEMBIC})
            for name in contenders
        ],
        effort.rounds,
    )
    trips = Measured("trips")
    for name in contenders:
        busiest, total = _trips_a_revision(whole, few, name)
        trips.values |= {(counted, name): [busiest], (in_all, name): [total]}
    goals = (
        Goal(
            f"{local}, to the alembic CLI with the same transactions",
            times.ratio((local, OURS), (local, tools.ALEMBIC)),
            1.0,
        ),
        Goal("round trips a revision, to the alembic CLI", trips.ratio((counted, OURS), (counted, tools.ALEMBIC)), 1.0),
        Goal(f"{distant}, to the alembic CLI", far.ratio((distant, OURS), (distant, tools.ALEMBIC)), 1.0),
    )
    return Outcome(
        QUESTION,
        "An empty database through the whole history",
        (*times.rows(), *far.rows(), *sorted(trips.rows(), key=lambda row: row.case == in_all)),
        goals,
        (
            "Every contestant commits after each revision. For the alembic CLI, env.py sets this.",
            "Functions: cold, from the start of the process to the response. Commands: with their bytecode.",
            f"Round trips: of one more revision, computed from runs of {part:,} and {effort.long:,} revisions.",
            "Only round trips of the session that applies revisions count: no revision waits for the other sessions.",
            "A slow contestant without a goal is measured once.",
        ),
    )


def _run_tool(ground: Ground, name: str, history: Sequence[Change], database: Database) -> float:
    return tools.tool(ground, name, str(len(history)), history, database).run()


def _trips_a_revision(whole: _Contest, part: _Contest, name: str) -> tuple[float, float]:
    """Return the round trips of one more revision, on the busiest connection and on all connections.

    The fixed costs of a run cancel out.
    """
    more = whole.revisions - part.revisions
    all_of, some_of = whole.trips(name), part.trips(name)
    return (max(all_of) - max(some_of)) / more, (sum(all_of) - sum(some_of)) / more


class _Contest:
    """All contestants with one history. Each migrates an empty database in its own way."""

    def __init__(self, ground: Ground, history: Sequence[Change]) -> None:
        self._ground = ground
        self.revisions = len(history)
        label = str(len(history))
        ours = functions.ours(ground, label, history)
        naive = functions.naive(ground, label, history)
        bare = functions.bare(ground, label, history)
        self.runs: dict[str, Callable[[Database], float]] = {
            OURS: lambda database: functions.our_function(ground, ours, database).cold(),
            _NAIVE: lambda database: functions.naive_function(ground, naive, database).cold(),
            _BARE: lambda database: functions.bare_function(ground, bare, database).cold(),
        }
        for name in tools.NAMES:
            self.runs[name] = partial(_run_tool, ground, name, history)

    def timed(self, name: str, latency_s: float | None = None) -> Callable[[], float]:
        """Return a function that runs a round with this latency, and returns its seconds."""
        return lambda: self._run(name, latency_s)[0]

    def trips(self, name: str) -> list[int]:
        """Return the round trips of a run, by connection."""
        return self._run(name, 0.0)[1]

    def _run(self, name: str, latency_s: float | None) -> tuple[float, list[int]]:
        database = self._ground.database(f"empty_{list(self.runs).index(name)}")
        if name == _BARE:
            execute(database, VERSION_TABLE)
        if latency_s is None:
            return self._checked(name, database, database), []
        with Network(("127.0.0.1", database.port), latency_s) as network:
            took = self._checked(name, database, self._ground.behind(database, network.port))
        return took, network.trips

    def _checked(self, name: str, database: Database, reached: Database) -> float:
        took = self.runs[name](reached)
        if value(database, f"SELECT to_regclass('{LAST_TABLE}')::text") is None:
            raise RuntimeError(f"{name} reported success, but its database lacks the last table")
        return took


if __name__ == "__main__":
    main(measure)
