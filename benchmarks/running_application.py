"""How long does the running application stall when a revision needs a table that somebody reads?"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import functions, tools
from benchmarks.ground import execute, value
from benchmarks.histories import busy_change
from benchmarks.measurement import OURS, Effort, Goal, Measured, Outcome
from benchmarks.suite import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.ground import Ground
    from localcloud.postgres import Database

QUESTION = "running_application"

_CASE = "longest stall"
# The default of LOCK_TIMEOUT_MS. After the wait, the statement still has to run.
_OUR_LOCK_TIMEOUT_S = 3.0
_SLACK_S = 0.5
_REPORT_S = 5.0
_SMALLEST_REPORT_S = 0.2
_PAUSE_S = 0.02
_LONGEST_S = 120.0
_HISTORY = (busy_change("busy"),)
_WAITS = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND query ILIKE '%ALTER TABLE busy%'"
)
_STATEMENTS = (
    "SELECT count(*) FROM busy",
    "UPDATE busy SET n = n + 1 WHERE id = 1 + (random() * 49)::int",
)


def measure(ground: Ground, effort: Effort) -> Outcome:
    """Measure all contestants at the same time, each in its own database. They mostly wait."""
    package = functions.ours(ground, "busy", _HISTORY)
    report_s = _REPORT_S if effort.rounds > 1 else _SMALLEST_REPORT_S
    migrations: dict[str, Callable[[Database], object]] = {
        OURS: lambda database: functions.our_function(ground, package, database).cold(),
        **{name: partial(_migrate, ground, name) for name in tools.NAMES},
    }
    measured = Measured("s")
    for _ in range(effort.rounds):
        databases = {name: ground.database(f"busy_{number}") for number, name in enumerate(migrations)}
        with ThreadPoolExecutor(len(migrations)) as together:
            stalls = {
                name: together.submit(_stall, databases[name], migrate, report_s)
                for name, migrate in migrations.items()
            }
        for name, stall in stalls.items():
            measured.values.setdefault((_CASE, name), []).append(stall.result())
    return Outcome(
        QUESTION,
        f"The application while a revision adds a column to a table that a report reads for {report_s:g} s more",
        measured.rows(),
        (
            Goal(
                "longest stall of all rounds, by the default LOCK_TIMEOUT_MS",
                max(measured.values[_CASE, OURS]),
                _OUR_LOCK_TIMEOUT_S + _SLACK_S,
                "s",
            ),
        ),
        (
            "The longest wait of a reader or a writer for one statement. Every tool has its default settings.",
            "Without a lock timeout, the stall is as long as the report, which is short here.",
        ),
    )


def _migrate(ground: Ground, name: str, database: Database) -> None:
    tools.tool(ground, name, "busy", _HISTORY, database).run()


def _stall(database: Database, migrate: Callable[[Database], object], report_s: float) -> float:
    execute(database, "CREATE TABLE busy AS SELECT id, 0 AS n FROM generate_series(1, 50) id")
    with _application(database) as took, ThreadPoolExecutor(1) as beside:
        with closing(database.connect()) as report, report.cursor() as cursor:
            cursor.execute("BEGIN; SELECT * FROM busy")
            migration = beside.submit(migrate, database)
            _wait_until(lambda: migration.done() or value(database, _WAITS) is not None)
            time.sleep(report_s)
        migration.result()
    if value(database, "SELECT 1 FROM pg_attribute WHERE attrelid = 'busy'::regclass AND attname = 'more'") is None:
        raise RuntimeError("the revision was not applied")
    return max(took)


@contextmanager
def _application(database: Database) -> Iterator[list[float]]:
    """Run a reader and a writer, and return the duration of each of their statements."""
    took: list[float] = []
    ends = threading.Event()

    def work(statement: str) -> None:
        with closing(database.connect()) as connection, connection.cursor() as cursor:
            while not ends.is_set():
                began = time.perf_counter()
                cursor.execute(statement)
                took.append(time.perf_counter() - began)
                time.sleep(_PAUSE_S)

    with ThreadPoolExecutor(len(_STATEMENTS)) as threads:
        work_done = [threads.submit(work, statement) for statement in _STATEMENTS]
        try:
            yield took
        finally:
            ends.set()
    for each in work_done:
        each.result()


def _wait_until(so: Callable[[], bool]) -> None:
    until = time.monotonic() + _LONGEST_S
    while not so():
        if time.monotonic() > until:
            raise RuntimeError("the revision did not reach the table")
        time.sleep(0.05)


if __name__ == "__main__":
    main(measure)
