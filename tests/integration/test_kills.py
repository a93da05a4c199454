"""A function that is killed leaves nothing half done, nothing running and nothing locked."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import execute, query
from tests.support.ledger import (
    concurrent_index,
    empty,
    is_running,
    lock_holders,
    reached,
    sessions,
    write_ledger,
)
from tests.support.trees import Rev, sql, write_tree
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

# How long after a kill the server may still work on it.
GONE_WITHIN_S = 5


def gone(database: Database, request: str) -> bool:
    return not sessions(database, request) and not lock_holders(database)


def has_begun(runner: Runner, request: str) -> bool:
    return any(line["function_request_id"] == request for line in runner.events("revision.started"))


def index_states(database: Database) -> list[tuple[str, bool]]:
    return query(
        database,
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = to_regclass('a') ORDER BY 1",
    )


@pytest.mark.stress
def test_a_kill_at_any_moment_keeps_the_boundary_and_the_next_run_finishes(
    runner: Runner,
    database: Database,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figure: Callable[[str], None],
) -> None:
    data = sql("CREATE TABLE t04 AS SELECT n AS id FROM generate_series(1, 50000) n", "UPDATE t04 SET id = id + 1")
    instead = {4: data, 5: concurrent_index("ix05", "t04"), 7: sql("UPDATE t04 SET id = id + 1")}
    tree = write_ledger(tmp_path / "tree", 12, instead=instead)
    survivor = runner.start(tree)
    survivor.invoke()
    whole = 0.0
    stopped_at = []
    slowest = 0.0
    for number in range(rounds(2, 100)):
        empty(database)
        # Warm, so that the moment falls into the run; at least one is timed to the end, to know how long that is.
        function = runner.start(tree)
        function.invoke({"action": "history"})
        if not whole:
            whole = function.invoke().duration_s
            empty(database)
        request = function.start()
        if number % 4:
            # Most of an invocation is the way to its first revision; most kills are to come after that.
            eventually(partial(has_begun, runner, request))
        time.sleep(random.Random(number).uniform(0, whole / 2))  # noqa: S311 - the moment is what is tried
        function.kill()
        killed = time.monotonic()
        # Every second time the next run follows at once, and may meet what the killed one has left working.
        if number % 2:
            eventually(partial(gone, database, request), within_s=GONE_WITHIN_S, of="the killed run's end")
            slowest = max(slowest, time.monotonic() - killed)
            stopped_at.append(reached(database))

        answer = survivor.invoke()

        assert answer.error_type is None, answer.payload
        assert reached(database) == 12
        assert query(database, "SELECT count(*) FROM t04 WHERE id BETWEEN 3 AND 50002") == [(50000,)]
        assert query(database, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix05'::regclass") == [(True,)]
        function.close()
    figure(f"killed after revision {sorted(stopped_at)} of 12; gone after {slowest:.1f} s at the most")


def test_a_kill_in_the_middle_of_a_statement_ends_it_and_frees_the_lock(
    runner: Runner, database: Database, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    tree = write_ledger(tmp_path / "tree", 2, instead={2: sql("SELECT pg_sleep(60)")})
    function = runner.start(tree)
    request = function.start()
    eventually(lambda: is_running(database, "pg_sleep"))

    function.kill()

    killed = time.monotonic()
    eventually(lambda: gone(database, request), within_s=GONE_WITHIN_S, of="the end of its sessions")
    figure(f"sessions and lock gone {time.monotonic() - killed:.1f} s after the kill")
    assert reached(database) == 1


def test_a_run_right_after_a_kill_ends_the_session_that_still_works(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    # The server takes no notice of the client's end before the statement is over, and then has committed it.
    slow = (
        "with op.get_context().autocommit_block():\n"
        "    op.execute('SET client_connection_check_interval = 0')\n"
        "    op.execute('DO $$ BEGIN PERFORM pg_sleep(3); INSERT INTO work VALUES (1); END $$')"
    )
    tree = write_ledger(tmp_path / "tree", 2, instead={1: sql("CREATE TABLE work (id int)"), 2: slow})
    next_one = runner.start(tree)
    next_one.invoke({"action": "history"})
    function = runner.start(tree)
    function.start()
    eventually(lambda: is_running(database, "pg_sleep"))

    function.kill()
    answer = next_one.invoke()

    assert answer.error_type is None, answer.payload
    assert reached(database) == 2
    assert query(database, "SELECT count(*) FROM work") == [(1,)]


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    index = concurrent_index("ix", "a")
    return write_tree(tmp_path / "indexed", [Rev("a1", sql("CREATE TABLE a (id int)")), Rev("b2", index)])


def test_an_invalid_index_left_by_a_kill_is_listed_then_dropped_and_built_again(
    runner: Runner, database: Database, indexed: Path
) -> None:
    function = runner.start(indexed)
    function.invoke({"revision": "a1"})
    with closing(database.connect()) as other, other.cursor() as cursor:
        # A writer that does not end holds up the build.
        cursor.execute("BEGIN; INSERT INTO a VALUES (1)")
        request = function.start()
        eventually(
            lambda: is_running(database, "CREATE INDEX CONCURRENTLY") and index_states(database) == [("ix", False)]
        )
        function.kill()
        eventually(lambda: gone(database, request), within_s=GONE_WITHIN_S)
        cursor.execute("COMMIT")

    next_one = runner.start(indexed)
    status = next_one.invoke({"action": "status"}).payload
    answer = next_one.invoke()

    assert status["invalid_indexes"] == [{"index": "ix", "table": "a"}]
    assert answer.error_type is None, answer.payload
    assert index_states(database) == [("ix", True)]
    [dropped] = runner.events("index.dropped")
    assert "ix" in dropped["message"]


@pytest.mark.stress
def test_a_valid_index_stays_unchanged(runner: Runner, database: Database, indexed: Path) -> None:
    function = runner.start(indexed)
    function.invoke({"revision": "a1"})
    execute(database, "CREATE INDEX ix ON a (id)")
    [before] = query(database, "SELECT 'ix'::regclass::oid")

    assert function.invoke().error_type is None

    assert query(database, "SELECT 'ix'::regclass::oid") == [before]
    assert not runner.events("index.dropped")


def test_an_index_that_another_session_builds_is_not_dropped(runner: Runner, database: Database, indexed: Path) -> None:
    function = runner.start(indexed, LOCK_TIMEOUT_MS="300")
    function.invoke({"revision": "a1"})
    with closing(database.connect()) as writer, writer.cursor() as cursor:
        cursor.execute("BEGIN; INSERT INTO a VALUES (1)")
        build = threading.Thread(target=execute, args=(database, "CREATE INDEX CONCURRENTLY ix ON a (id)"))
        build.start()
        eventually(lambda: index_states(database) == [("ix", False)])
        function.start()
        eventually(lambda: runner.events("revision.retried"))
        cursor.execute("COMMIT")
    build.join()

    assert function.result().error_type is None
    assert index_states(database) == [("ix", True)]
    assert not runner.events("index.dropped")
