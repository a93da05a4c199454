"""How much time does one more tenant take, with hundreds of databases or schemas and one pending revision each?"""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg2 import sql

from benchmarks import functions, tools
from benchmarks.cases import DATABASES, MANY_TARGETS, PROCESSOR, SERVER
from benchmarks.ground import execute
from benchmarks.histories import LAST_TABLE, changes, stamped
from benchmarks.measurement import OURS, Contestant, Effort, Goal, Measured, Outcome, interleaved
from benchmarks.processes import descendants
from benchmarks.suite import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.ground import Ground
    from benchmarks.histories import Change
    from localcloud.postgres import Database
    from localcloud.runtime_api import Function

SCHEMAS = "schemas"
QUESTION = MANY_TARGETS
LOOP = "shell loop of the alembic CLI"
BARE = "connect and apply, bare"

_MANY = 300
_FEW = 6
# The default of `per_server`.
_FUNCTIONS = 5
# Maximum ratios of our time to the time of the bare functions.
_WALL_GOAL = 4
_PROCESSOR_GOAL = 6

# Alembic's cookbook, "Rudimental Schema-Level Multi Tenancy for PostgreSQL Databases".
_CONNECT = "    with connectable.connect() as connection:\n"
_CONNECT_FOR_A_TENANT = """\
    with connectable.connect() as connection:
        tenant = context.get_x_argument(as_dictionary=True)["tenant"]
        connection.exec_driver_sql(f'SET search_path TO "{tenant}"')
        connection.commit()
        connection.dialect.default_schema_name = tenant
"""


@dataclass(frozen=True)
class Tenant:
    """A target: the event's ``target``, and the database for the other contestants."""

    target: Mapping[str, str]
    database: Database


@dataclass(frozen=True)
class Fleet:
    """Tenants of one kind. The login of ``stage`` reaches all of them, and its secret is the functions' secret."""

    kind: str
    stage: Database
    tenants: Sequence[Tenant]

    @property
    def case(self) -> str:
        """Return the name of the case."""
        return f"{len(self.tenants)} {self.kind}"


def measure(ground: Ground, effort: Effort) -> Outcome:
    """Measure all contestants, and compare them with the goals."""
    rounds = effort.rounds
    history = changes(effort.long)
    wall, processor, server = Measured("s"), Measured("s"), Measured("s")
    cases = []
    for made in (many_databases, many_schemas):
        with made(ground, _MANY if rounds > 1 else _FEW, history[-2]) as fleet:
            contest = _Contest(ground, fleet, history, rounds)
            contest.measure(wall, processor, server)
            cases.append(fleet.case)
    return Outcome(
        QUESTION,
        "One pending revision at each of many tenants, a tenant",
        (*wall.rows(), *processor.rows(), *server.rows()),
        tuple(goal for case in cases for goal in _goals(case, wall, processor)),
        (
            f"Wall time: until all are done, divided by their number. The history has {len(history):,} revisions.",
            f"{_functions(rounds)} warm functions share the tenants, the default number of a rollout on one server.",
            "These functions and the server also share this machine's processor.",
            f"The loop migrates one tenant after the other, {rounds} in total.",
            f"For {SCHEMAS} its env.py takes the search_path from `-x tenant=`.",
            f"“{BARE}”: the same number of warm functions. They connect, run the SQL and set the version.",
            "Processor time: of the functions' processes or of the commands. For the server: of its backends.",
        ),
    )


def _goals(case: str, wall: Measured, processor: Measured) -> tuple[Goal, ...]:
    used = f"{case}, {PROCESSOR}"
    return (
        Goal(f"{case}, to a bare connect and apply", wall.ratio((case, OURS), (case, BARE)), _WALL_GOAL),
        Goal(f"{used}, to a bare connect and apply", processor.ratio((used, OURS), (used, BARE)), _PROCESSOR_GOAL),
    )


class _Contest:
    """All contestants on one fleet. In each round, all of them migrate the same part of it."""

    def __init__(self, ground: Ground, fleet: Fleet, history: Sequence[Change], rounds: int) -> None:
        self._ground = ground
        self._fleet = fleet
        self._history = history
        self._rounds = rounds
        self._parts = dict.fromkeys((OURS, BARE, LOOP), 0)

    def measure(self, wall: Measured, processor: Measured, server: Measured) -> None:
        """Add this fleet's cases to the measurements."""
        # The same package as for other questions.
        name = str(len(self._history))
        ours, bare = (
            functions.ours(self._ground, name, self._history),
            functions.bare(self._ground, name, self._history),
        )
        stage = self._fleet.stage
        deployed = {
            OURS: functions.our_function(self._ground, ours, stage),
            BARE: functions.bare_function(self._ground, bare, stage),
        }
        with ExitStack() as stack:
            server_time = stack.enter_context(postmaster(self._ground))
            runs: dict[str, Callable[[], float]] = {}
            for who, one in deployed.items():
                pool = [stack.enter_context(one.start()) for _ in range(_functions(self._rounds))]
                self._warm(pool)
                runs[who] = partial(self._functions, who, pool, server_time, processor, server)
            # The first run of the command writes its bytecode.
            _command(self._ground, self._fleet.tenants[0], self._history).run()
            self._take_back(self._fleet.tenants[:1])
            runs[LOOP] = partial(self._loop, processor)
            measured = interleaved(
                [Contestant(self._fleet.case, who, run) for who, run in runs.items()],
                self._rounds,
                warm_up=False,
            )
        wall.values.update(measured.values)

    def _part(self, name: str) -> Sequence[Tenant]:
        """Return the tenants of this round. Each round has the next part, so that each tenant is measured once."""
        number = self._parts[name]
        self._parts[name] += 1
        return self._fleet.tenants[number :: self._rounds]

    def _warm(self, pool: Sequence[Function]) -> None:
        for function, tenant in zip(pool, self._fleet.tenants, strict=False):
            _migrate(function, tenant)
        self._take_back(self._fleet.tenants[: len(pool)])

    def _functions(
        self,
        name: str,
        pool: Sequence[Function],
        server_time: Callable[[], float],
        processor: Measured,
        server: Measured,
    ) -> float:
        tenants = self._part(name)
        left = deque(tenants)

        def work(function: Function) -> None:
            while True:
                try:
                    tenant = left.popleft()
                except IndexError:
                    return
                _migrate(function, tenant)

        used, served = used_by(pool), server_time()
        began = time.perf_counter()
        for_each(work, pool)
        took = time.perf_counter() - began
        self._note(processor, PROCESSOR, name, used_by(pool) - used, tenants)
        self._note(server, SERVER, name, server_time() - served, tenants)
        self._take_back(tenants)
        return took / len(tenants)

    def _loop(self, processor: Measured) -> float:
        tenants = self._part(LOOP)[:1]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        took = _command(self._ground, tenants[0], self._history).run()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self._note(processor, PROCESSOR, LOOP, used, tenants)
        self._take_back(tenants)
        return took

    def _note(self, measured: Measured, what: str, name: str, used: float, tenants: Sequence[Tenant]) -> None:
        measured.values.setdefault((f"{self._fleet.case}, {what}", name), []).append(used / len(tenants))

    def _take_back(self, tenants: Sequence[Tenant]) -> None:
        """Undo the applied revision of each tenant. A tenant without it is an error."""
        for_each(partial(_take_back, self._history), tenants)


def _functions(rounds: int) -> int:
    """Return the number of functions that share the work, fewer in a quick test."""
    return _FUNCTIONS if rounds > 1 else 2


def _migrate(function: Function, tenant: Tenant) -> None:
    functions.succeeded(function.invoke({"action": "upgrade", "target": tenant.target}), function)


def _take_back(history: Sequence[Change], tenant: Tenant) -> None:
    with closing(tenant.database.connect()) as connection, connection.cursor() as cursor:
        if schema := tenant.target.get("schema"):
            cursor.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
        cursor.execute(f"DROP TABLE {LAST_TABLE}")
        cursor.execute(
            "UPDATE alembic_version SET version_num = %s WHERE version_num = %s",
            (history[-2].revision, history[-1].revision),
        )
        if cursor.rowcount != 1:
            raise RuntimeError(f"{tenant.target} is not at the revision that was applied")


def _command(ground: Ground, tenant: Tenant, history: Sequence[Change]) -> tools.Tool:
    """Return the alembic command for this tenant."""
    schema = tenant.target.get("schema")
    if schema is None:
        return tools.tool(ground, tools.ALEMBIC, str(len(history)), history, tenant.database)
    tool = tools.tool(ground, tools.ALEMBIC, "tenants", history, tenant.database)
    env_py = tool.folder / "migrations" / "env.py"
    text = env_py.read_text(encoding="utf-8")
    if _CONNECT_FOR_A_TENANT not in text:
        env_py.write_text(text.replace(_CONNECT, _CONNECT_FOR_A_TENANT), encoding="utf-8")
    program, *arguments = tool.command
    return replace(tool, command=(program, "-x", f"tenant={schema}", *arguments))


@contextmanager
def many_databases(ground: Ground, count: int, before: Change) -> Iterator[Fleet]:
    """Create databases with one owner, each at the revision before the last."""
    stage = ground.database("many_databases")
    execute(stage, *stamped(before))
    names = [f"{stage.name}_{number:04}" for number in range(count)]
    with closing(ground.server.connect()) as connection, connection.cursor() as cursor:
        try:
            for name in names:
                cursor.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
                        *map(sql.Identifier, (name, stage.name, stage.user))
                    )
                )
            tenants = [Tenant({"database": name}, replace(stage, name=name)) for name in names]
            # The first connection writes a file that makes all later connections faster.
            for_each(lambda tenant: execute(tenant.database, "SELECT 1"), tenants)
            yield Fleet(DATABASES, stage, tenants)
        finally:
            for name in names:
                cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def many_schemas(ground: Ground, count: int, before: Change) -> Iterator[Fleet]:
    """Create schemas in one database, each at the revision before the last."""
    stage = ground.database("many_schemas")
    names = [f"tenant_{number:04}" for number in range(count)]
    execute(
        stage,
        *(
            statement
            for name in names
            for statement in (f"CREATE SCHEMA {name}", f"SET search_path TO {name}", *stamped(before))
        ),
    )
    yield Fleet(SCHEMAS, stage, [Tenant({"schema": name}, stage) for name in names])


def for_each(work: Callable[..., object], on: Sequence[object]) -> None:
    """Do the work for each tenant, in as many threads as there are functions."""
    with ThreadPoolExecutor(_FUNCTIONS) as threads:
        for done in [threads.submit(work, one) for one in on]:
            done.result()


@contextmanager
def postmaster(ground: Ground) -> Iterator[Callable[[], float]]:
    """Measures the processor time of all backends that have ended, in seconds."""
    with closing(ground.server.connect()) as connection, connection.cursor() as cursor:
        pid = _stat(connection.get_backend_pid())[1]

        def used() -> float:
            while True:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE %s", (f"{ground.scratch.name}%",)
                )
                [(working,)] = cursor.fetchall()
                if not working:
                    return _used(int(pid))
                time.sleep(0.01)

        yield used


def used_by(pool: Sequence[Function]) -> float:
    """Return the processor time of functions, of the fork servers that run beside them, and of their ended children."""
    return sum(_used(pid) for function in pool for pid in (function.pid, *descendants(function.pid)))


def _used(pid: int) -> float:
    """Return the processor time of a process and of its ended children, in seconds."""
    # The process's own clock counts nanoseconds. This is its id (clock_getcpuclockid(3), which Python lacks).
    own = time.clock_gettime(~pid << 3 | 2)
    return own + sum(map(int, _stat(pid)[13:15])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat (proc(5)) after the program's name: state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


if __name__ == "__main__":
    main(measure)
