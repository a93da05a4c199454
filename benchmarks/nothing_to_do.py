"""How long does a run with nothing to do take: cold, with histories of three lengths, and warm?"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import functions, tools
from benchmarks.ground import execute
from benchmarks.histories import changes, stamped
from benchmarks.measurement import OURS, Contestant, Effort, Goal, Outcome, interleaved
from benchmarks.suite import main

if TYPE_CHECKING:
    from benchmarks.functions import Deployed
    from benchmarks.ground import Ground
    from localcloud.postgres import Database

QUESTION = "nothing_to_do"

_NAIVE = "naive handler"
_BARE = "bare script, no bytecode"
_BARE_COMPILED = "bare script, with bytecode"
_CONNECT = "connect and one query"
_WARM = "warm"
# Warm invocations take milliseconds, so more rounds cost nothing.
_WARM_ROUNDS = 5


def measure(ground: Ground, effort: Effort) -> Outcome:
    """Measure all contestants, and compare them with the goals."""
    contestants: list[Contestant] = []
    warm: list[Contestant] = []
    with ExitStack() as stack:
        for size in effort.sizes:
            deployed = _deployed(ground, size)
            contestants += [
                # A slow contestant without a goal is measured once.
                Contestant(_cold(size), name, one.cold, once=name == _NAIVE and size > effort.long)
                for name, one in deployed.items()
            ]
            if size == effort.long:
                for name, (tool, _) in tools.tools(ground, str(size), changes(size)).items():
                    tools.bring_to_head(tool)
                    contestants.append(Contestant(_cold(size), name, tool.run))
                for name in (OURS, _NAIVE, _BARE_COMPILED):
                    function = stack.enter_context(deployed[name].start())
                    functions.succeeded(function.invoke(), function)
                    warm.append(Contestant(_WARM, name, partial(functions.warm, function)))
                database = ground.made[deployed[OURS].environment["DB_SECRET_ID"]]
                warm.append(Contestant(_WARM, _CONNECT, partial(_connect_and_query, database)))
        cold = interleaved(contestants, effort.rounds)
        hot = interleaved(warm, effort.rounds * _WARM_ROUNDS)
    goals = [
        Goal(
            f"cold at {size:,} revisions, to the bare script with bytecode",
            cold.ratio((_cold(size), OURS), (_cold(size), _BARE_COMPILED)),
            0.95,
        )
        for size in effort.sizes
    ]
    long = _cold(effort.long)
    goals += [
        Goal(f"cold at {effort.long:,} revisions, to the naive handler", cold.ratio((long, OURS), (long, _NAIVE)), 0.2),
        Goal("warm, to connect and one query", hot.ratio((_WARM, OURS), (_WARM, _CONNECT)), 2.0),
    ]
    return Outcome(
        QUESTION,
        "Nothing to do",
        (*cold.rows(), *hot.rows()),
        tuple(goals),
        (
            "Cold: from the start of the function's process to the response. Warm: the next invocation.",
            "Commands: from start to end. They get the address as an argument or variable, and have bytecode.",
            "The bare script is measured without bytecode, as people deploy it, and with bytecode, for the goal.",
            f"“{_CONNECT}” is done by a process that runs already: no runtime client, no event, no response.",
        ),
    )


def _cold(size: int) -> str:
    return f"cold, {size:,} revisions"


def _deployed(ground: Ground, size: int) -> dict[str, Deployed]:
    history = changes(size)
    database = ground.database(f"nothing_{size}")
    execute(database, *stamped(history[-1]))
    name = str(size)
    source = functions.bare(ground, name, history, bytecode=False)
    compiled = functions.bare(ground, name, history)
    return {
        OURS: functions.our_function(ground, functions.ours(ground, name, history), database),
        _NAIVE: functions.naive_function(ground, functions.naive(ground, name, history), database),
        _BARE: functions.bare_function(ground, source, database),
        _BARE_COMPILED: functions.bare_function(ground, compiled, database),
    }


def _connect_and_query(database: Database) -> float:
    began = time.perf_counter()
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version_num FROM alembic_version")
        cursor.fetchall()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(measure)
