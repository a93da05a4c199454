"""A run ends before Lambda's timeout: it starts no revision without time, and stops a running one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import query
from tests.support.ledger import applied_ids, is_running, reached, sessions, write_ledger
from tests.support.proxy import Proxy
from tests.support.samples import sampled
from tests.support.trees import sql
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localcloud.postgres import Database
    from localcloud.runtime_api import Function
    from tests.support.functions import Runner

TIMEOUT_S = 7.0
RESERVE_MS = "3500"

NAPS = sql("SELECT pg_sleep(0.6)")
IGNORES_CANCELLATION = """
try:
    op.get_bind().exec_driver_sql("SELECT pg_sleep(1000)")
except Exception:
    time.sleep(1000)
"""
CATCHES_EVERYTHING = """
while True:
    try:
        op.get_bind().exec_driver_sql("SELECT pg_sleep(1000)")
    except BaseException:
        pass
"""


def started(runner: Runner, tree: Path) -> Function:
    """Start a function before the invocation, because Lambda's clock starts with the invocation."""
    function = runner.start(tree, timeout_s=TIMEOUT_S, DEADLINE_RESERVE_MS=RESERVE_MS)
    function.invoke({"action": "history"})
    return function


def test_no_revision_starts_without_time_and_the_next_invocation_continues(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    tree = write_ledger(tmp_path / "tree", 14, instead=dict.fromkeys(range(2, 15), NAPS))
    function = started(runner, tree)

    first = function.invoke()
    at = reached(database)
    second = function.invoke()

    assert first.error_type == "MigrationIncomplete"
    assert first.duration_s < TIMEOUT_S
    assert 1 < at < 14
    assert f"{at} applied, {14 - at} left" in first.message
    assert f"the next is r{at + 1:02}" in first.message
    assert f"the database is at r{at:02}" in first.message
    done = [line["revision"] for line in runner.events("revision.applied")]
    assert done == [f"r{number:02}" for number in range(1, len(done) + 1)]
    reached_then = reached(database)
    assert reached_then > at
    if second.error_type is None:
        assert applied_ids(second) == [f"r{number:02}" for number in range(at + 1, 15)]
    else:
        assert second.error_type == "MigrationIncomplete"


@pytest.mark.parametrize(
    "stubborn",
    [
        pytest.param(sql("SELECT pg_sleep(1000)"), id="statement"),
        pytest.param(CATCHES_EVERYTHING, id="catches every cancellation"),
        pytest.param("time.sleep(1000)", id="python sleeps", marks=pytest.mark.stress),
        pytest.param(IGNORES_CANCELLATION, id="sleeps on after the cancellation", marks=pytest.mark.stress),
        pytest.param("while True: pass", id="python loops", marks=pytest.mark.stress),
    ],
)
def test_a_revision_that_takes_too_long_is_ended_before_the_timeout(
    runner: Runner, database: Database, tmp_path: Path, stubborn: str, figure: Callable[[str], None]
) -> None:
    tree = write_ledger(tmp_path / "tree", 3, instead={2: stubborn})

    answer = started(runner, tree).invoke()

    assert answer.error_type == "MigrationIncomplete", answer.payload
    assert answer.duration_s < TIMEOUT_S
    assert "1 applied, 2 left, the next is r02 (Step 2); the database is at r01" in answer.message
    assert reached(database) == 1
    assert sessions(database, answer.request_id) == []
    figure(f"answered {TIMEOUT_S - answer.duration_s:.1f} s before the timeout of {TIMEOUT_S} s")


def test_programs_that_a_revision_started_end_with_it(runner: Runner, database: Database, tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"
    beside = f"""
import subprocess
subprocess.Popen(["/bin/sh", "-c", "while :; do date +%s%N > {stamp}; sleep 0.1; done"])
time.sleep(1000)
"""
    tree = write_ledger(tmp_path / "tree", 2, instead={2: beside})
    function = started(runner, tree)

    answer = function.invoke()
    last = stamp.read_text()
    function.invoke({"action": "history"})

    assert answer.error_type == "MigrationIncomplete"
    assert reached(database) == 1
    assert stamp.read_text() == last


@pytest.mark.stress
def test_a_revision_may_use_processes_of_its_own(runner: Runner, database: Database, tmp_path: Path) -> None:
    works = "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(2) as pool:\n    pool.map(abs, [1])"
    tree = write_ledger(tmp_path / "tree", 2, instead={2: works})

    assert runner.invoke(tree).error_type is None
    assert reached(database) == 2


@pytest.mark.stress
def test_a_statement_is_never_given_more_time_than_is_left(runner: Runner, database: Database, tmp_path: Path) -> None:
    seen = sql(
        "CREATE TABLE IF NOT EXISTS seen (ms int)",
        "INSERT INTO seen SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'",
        "SELECT pg_sleep(0.5)",
    )
    tree = write_ledger(tmp_path / "tree", 4, instead=dict.fromkeys(range(1, 5), seen))

    assert started(runner, tree).invoke().error_type is None

    given = [row[0] for row in query(database, "SELECT ms FROM seen ORDER BY ms DESC")]
    usable = TIMEOUT_S * 1000 - int(RESERVE_MS)
    for number, ms in enumerate(given):
        assert 0 < ms <= usable - number * 500


@pytest.mark.stress
def test_a_cap_on_statements_is_a_failure_and_not_a_matter_of_time(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    tree = write_ledger(tmp_path / "tree", 2, instead={2: sql("SELECT pg_sleep(1000)")})

    answer = runner.invoke(tree, STATEMENT_TIMEOUT_MS="500")

    assert answer.error_type == "MigrationFailed"
    assert "SQLSTATE 57014" in answer.message
    assert reached(database) == 1


@pytest.mark.parametrize("reserve_ms", sampled(["3500", "0"], {"3500"}))
def test_a_server_that_falls_silent_does_not_keep_a_run_past_its_timeout(
    runner: Runner, database: Database, tmp_path: Path, reserve_ms: str, figure: Callable[[str], None]
) -> None:
    tree = write_ledger(tmp_path / "tree", 2, instead={2: sql("SELECT pg_sleep(5)")})
    with Proxy((database.host, database.port)) as proxy:
        function = runner.start(
            tree,
            timeout_s=TIMEOUT_S,
            DEADLINE_RESERVE_MS=reserve_ms,
            DB_HOST="127.0.0.1",
            DB_PORT=str(proxy.port),
        )
        function.invoke({"action": "history"})
        began = time.monotonic()
        function.start()
        eventually(lambda: is_running(database, "pg_sleep"))
        proxy.fault = "blackhole"

        answer = function.result()
        took = time.monotonic() - began

    assert answer.error_type == "DatabaseUnavailable", answer.payload
    assert took < TIMEOUT_S
    assert reached(database) == 1
    figure(f"reserve {reserve_ms} ms: answered {TIMEOUT_S - took:.1f} s before the timeout")


def test_a_secret_that_does_not_come_does_not_keep_a_run_past_its_timeout(runner: Runner, tmp_path: Path) -> None:
    tree = write_ledger(tmp_path / "tree", 1)
    with Proxy(("127.0.0.1", 9), fault="blackhole") as proxy:
        function = runner.start(tree, timeout_s=5, AWS_ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}")

        answer = function.invoke()

    assert answer.error_type == "SecretUnavailable"
    assert answer.duration_s < 5
