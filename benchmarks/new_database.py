"""How long does a new database need with a checkpoint, and with its whole history?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import functions, tools
from benchmarks.ground import ROOT, value
from benchmarks.histories import LAST_TABLE, changes
from benchmarks.measurement import OURS, Contestant, Effort, Goal, Outcome, interleaved
from benchmarks.suite import main
from infra.package.builder import build
from infra.package.package_platform import Platform
from lambda_migrate.revisions.checkpoint import SCRIPT, placed
from localcloud import pg_dump
from migrate_review.checkpoint.making import make
from migrate_review.checkpoint.replaying import Backend
from migrate_review.measure.session import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.ground import Ground
    from benchmarks.histories import Change
    from localcloud.postgres import Database
    from localcloud.runtime_api import Function

QUESTION = "new_database"

_PSQL = "psql replaying the SQL"
_RESTORE = "connect and restore, bare"
_REPLAYING = "this function, replaying"


def measure(ground: Ground, effort: Effort) -> Outcome:
    """Measure all contestants, and compare them with the goals."""
    history = changes(effort.long)
    cold, tenant = f"{effort.long:,} revisions, cold", f"{effort.long:,} revisions, a further tenant"
    contest = _Contest(ground, history)
    with contest.warm_function() as warm:
        measured = interleaved(
            [
                Contestant(cold, OURS, contest.timed("ours", contest.cold)),
                Contestant(cold, _REPLAYING, contest.timed("replaying", contest.replaying)),
                Contestant(cold, _PSQL, contest.timed("psql", contest.psql)),
                Contestant(cold, tools.DBMATE, contest.timed("dbmate", contest.dbmate)),
                Contestant(tenant, OURS, contest.timed("warm", partial(contest.warm, warm))),
                Contestant(tenant, _RESTORE, contest.timed("bare", contest.bare)),
            ],
            effort.rounds,
        )
    goals = (
        Goal("cold, to psql replaying the SQL", measured.ratio((cold, OURS), (cold, _PSQL)), 0.25),
        Goal("cold, to dbmate", measured.ratio((cold, OURS), (cold, tools.DBMATE)), 0.2),
        Goal(
            "a further tenant, to a bare connect and restore", measured.ratio((tenant, OURS), (tenant, _RESTORE)), 1.5
        ),
    )
    return Outcome(
        QUESTION,
        "A new database, from a checkpoint",
        measured.rows(),
        goals,
        (
            "psql runs one file, each revision in a transaction, over a connection without TLS: its build has none.",
            "A bare restore: psycopg2, already loaded, connects, runs checkpoint.sql and commits.",
            "A further tenant: the function's process has migrated another one before.",
        ),
    )


class _Contest:
    """All contestants with one history, each with an empty database."""

    def __init__(self, ground: Ground, history: Sequence[Change]) -> None:
        self._ground = ground
        self._history = history
        label = f"checkpoint-{len(history)}"
        backend = functions.backend(ground, label, history)
        self._script = backend / "migrations" / SCRIPT
        if not self._script.exists():
            made = make(
                Backend(backend, settings_of(backend, "alembic.ini", {}), Path(sys.executable), {}), versions=(18,)
            )
            made.write()
        self._package = ground.scratch / f"ours-{label}"
        if not self._package.exists():
            build(backend, self._package, Platform())
        self._replaying = functions.ours(ground, str(len(history)), history)
        self._sql = ground.scratch / f"{label}.sql"
        self._sql.write_text("".join(f"BEGIN;\n{change.sql};\nCOMMIT;\n" for change in history))

    def timed(self, name: str, run: Callable[[Database], float]) -> Callable[[], float]:
        """Return the seconds of a round, which ends with the last table."""

        def once() -> float:
            database = self._ground.database(f"new_{name}")
            took = run(database)
            if value(database, f"SELECT to_regclass('{LAST_TABLE}')::text") is None:
                raise RuntimeError(f"{name} reported success, but its database lacks the last table")
            return took

        return once

    def cold(self, database: Database) -> float:
        """Run this function, from the start of its process."""
        return functions.our_function(self._ground, self._package, database).cold()

    def replaying(self, database: Database) -> float:
        """Run the whole history, without the checkpoint."""
        return functions.our_function(self._ground, self._replaying, database).cold()

    def warm_function(self) -> Function:
        """Return a function that has migrated a tenant."""
        first = self._ground.database("new_first")
        function = functions.our_function(self._ground, self._package, first).start()
        functions.succeeded(function.invoke({"target": {"secret_id": first.name}}), function)
        return function

    def warm(self, function: Function, database: Database) -> float:
        """Migrate a further tenant in that function."""
        answer = function.invoke({"target": {"secret_id": database.name}})
        functions.succeeded(answer, function)
        return float(answer.duration_s)

    def bare(self, database: Database) -> float:
        """Connect, run the script, commit."""
        script = placed(self._script.read_text(encoding="utf-8"), "public", database.user)
        began = time.perf_counter()
        with closing(database.connect()) as opened, opened.cursor() as cursor:
            cursor.execute(script)
        return time.perf_counter() - began

    def psql(self, database: Database) -> float:
        """Run the history's SQL with psql."""
        return self._run(
            [pg_dump.program(ROOT, "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", self._sql], database
        )

    def dbmate(self, database: Database) -> float:
        """Run the history's SQL with dbmate."""
        return tools.tool(self._ground, tools.DBMATE, str(len(self._history)), self._history, database).run()

    def _run(self, command: Sequence[Path | str], database: Database) -> float:
        environment = {
            "PATH": os.defpath,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(database.port),
            "PGDATABASE": database.name,
            "PGUSER": database.user,
            "PGPASSWORD": database.password,
            "PGSSLMODE": "disable",
        }
        began = time.perf_counter()
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True, capture_output=True)
        return time.perf_counter() - began


if __name__ == "__main__":
    main(measure)
