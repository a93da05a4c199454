"""How far off is the preflight's estimate of a revision's time?

Each statement runs once on each table. The function makes its estimate right before, on the same server.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2.errors

from benchmarks.ground import execute
from benchmarks.measurement import OURS, Goal, Outcome, Row
from benchmarks.suite import main
from lambda_migrate.database.common import Server
from lambda_migrate.database.credentials import Credentials
from lambda_migrate.database.estimate import CAUTION
from lambda_migrate.database.preflight_queries import PreflightQueries
from lambda_migrate.database.session import Session
from lambda_migrate.invocation.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.ground import Ground
    from benchmarks.measurement import Effort
    from localcloud.postgres import Database

QUESTION = "estimates"

_SIZES = (1_000_000, 20_000_000)
_SMALL = 10_000
_REAL = "the statement itself"
# The goals: nine of ten estimates within a factor of three, and none more than two times too short.
_FACTOR, _SHARE, _SHORTEST = 3, 0.9, 2
_LONG_S = 3600
# The time limit of the whole benchmark, in seconds. On a slow machine it leaves out the rest.
_ALL_S = 1800

_SLOWEST = "UPDATE of all rows"
# A statement, and the work that the reviewer records for it: kind and share of the rows.
_STATEMENTS: Mapping[str, tuple[str, tuple[tuple[str, str, float], ...]]] = {
    "SET NOT NULL": ("ALTER TABLE {t} ALTER amount SET NOT NULL", (("{t}", "scan", 1),)),
    "CHECK": ("ALTER TABLE {t} ADD CONSTRAINT ck CHECK (amount >= 0 AND length(word) < 50)", (("{t}", "scan", 1),)),
    "index of a number": ("CREATE INDEX ix_amount ON {t} (amount)", (("{t}", "index", 1),)),
    "index of a text": ("CREATE INDEX ix_word ON {t} (word)", (("{t}", "index", 1),)),
    "UNIQUE": ("ALTER TABLE {t} ADD CONSTRAINT uq UNIQUE (number)", (("{t}", "index", 1),)),
    "FOREIGN KEY": (
        "ALTER TABLE {t} ADD CONSTRAINT fk FOREIGN KEY (ref) REFERENCES refs (id)",
        (("{t}", "foreign_key", 1), ("refs", "foreign_key", 1)),
    ),
    "rewrite for a type": ("ALTER TABLE {t} ALTER amount TYPE bigint", (("{t}", "rewrite", 1),)),
    "rewrite for a default": ("ALTER TABLE {t} ADD made double precision DEFAULT random()", (("{t}", "rewrite", 1),)),
    "UPDATE of a tenth": ("UPDATE {t} SET word = 'changed' WHERE number % 10 = 0", (("{t}", "change", 0.1),)),
    _SLOWEST: ("UPDATE {t} SET ref = ref", (("{t}", "change", 1),)),
}


def measure(ground: Ground, effort: Effort, *, seconds: float = _ALL_S) -> Outcome:
    """Compare the estimates with real times, for about this number of seconds."""
    sizes = _SIZES if effort.long > _SMALL // 10 - 1 else (_SMALL,)
    database = ground.database("estimates")
    rows: list[Row] = []
    ratios: list[float] = []
    left_out: list[str] = []
    until = time.monotonic() + seconds
    for size in sizes:
        table = f"t{size}"
        if not _make(database, table, size, until):
            left_out.append(f"the table of {size:,} rows")
            continue
        for name, (statement, work) in _STATEMENTS.items():
            if name == _SLOWEST and size > _SIZES[0]:
                continue  # it would take a quarter of an hour
            works = [{"table": each.format(t=table), "kind": kind, "share": share} for each, kind, share in work]
            case = f"{name}, {size:,} rows"
            estimated = _estimate(database, works)
            took = _seconds(database, statement.format(t=table), until)
            if took is None:
                left_out.append(case)
                continue
            rows += [
                Row(case, OURS, "s", (estimated,), 1),
                Row(case, _REAL, "s", (took,), took / estimated),
            ]
            ratios.append(estimated / took)
        execute(database, f"DROP TABLE IF EXISTS {table}")
    ordered = sorted(ratios)
    far_off = sum(not 1 / _FACTOR <= ratio <= _FACTOR for ratio in ratios)
    goals: tuple[Goal, ...] = ()
    if ratios:
        goals = (
            Goal("the share of estimates that are more than three times off", far_off / len(ratios), 1 - _SHARE, "x"),
            Goal("the largest factor by which an estimate is too short", 1 / ordered[0], _SHORTEST),
        )
    shown = ", ".join(f"{ratio:.2f}" for ratio in ordered)
    notes = (
        "The function's time is its estimate: the end of the range that a plan shows.",
        f"Estimates divided by real times, sorted: {shown}.",
        "Tables have one bigint key, three numbers and a short text; the server does not wait for its disk.",
        *([f"Not measured within {seconds:,.0f} s: {', '.join(left_out)}."] if left_out else []),
    )
    return Outcome(QUESTION, "A revision's estimated and real time", tuple(rows), goals, notes)


def _make(database: Database, table: str, size: int, until: float) -> bool:
    """Make a table. Return False if the time was over before."""
    statements = (
        "CREATE TABLE IF NOT EXISTS refs (id int PRIMARY KEY)",
        "INSERT INTO refs SELECT generate_series(0, 9999) ON CONFLICT DO NOTHING",
        f"CREATE TABLE {table} (id bigint PRIMARY KEY, ref int, amount int, number bigint, word text)",
        (
            f"INSERT INTO {table} SELECT n, n % 10000, (n * 7919) % 100000, (n * 104729) % 2147483647,"  # noqa: S608 - ours
            f" md5(n::text) FROM generate_series(1::bigint, {size}) AS n"
        ),
        f"VACUUM ANALYZE {table}",
    )
    return all(_seconds(database, statement, until) is not None for statement in statements)


def _estimate(database: Database, works: list[dict[str, object]]) -> float:
    with closing(database.connect()) as opened:
        opened.autocommit = True
        session = Session(
            opened,
            opened.info.backend_pid,
            Server(opened.server_version // 10000, "", database.name),
            Credentials(database.host, database.port, database.name, database.user, "", "verify-full", database.ca),
            Deadline.after(_LONG_S),
        )
        middle = PreflightQueries(session, "public", _LONG_S * 1000, None, session.deadline).milliseconds(works)
    assert middle is not None  # noqa: S101 - the tables exist
    return middle * CAUTION / 1000


def _seconds(database: Database, statement: str, until: float) -> float | None:
    """Return the seconds that a statement takes, or None if it did not end in time."""
    left_ms = int(1000 * (until - time.monotonic()))
    if left_ms <= 0:
        return None
    with closing(database.connect()) as opened, opened.cursor() as cursor:
        opened.autocommit = True
        cursor.execute(f"SET statement_timeout = {left_ms}")
        began = time.perf_counter()
        try:
            cursor.execute(statement)
        except psycopg2.errors.QueryCanceled:
            return None
        return time.perf_counter() - began


if __name__ == "__main__":
    main(measure)
