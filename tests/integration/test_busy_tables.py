"""A migration of tables in use: the application continues; the migration retries and names the blocking sessions."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import execute
from tests.support.ledger import is_running, reached, write_ledger
from tests.support.processes import killing
from tests.support.shortened import shorten
from tests.support.trees import sql
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

ALTERS = sql("ALTER TABLE busy ADD COLUMN more int")
LOCK_TIMEOUT_MS = 1000


@pytest.fixture
def busy(database: Database) -> None:
    execute(database, "CREATE TABLE busy AS SELECT id, 0 AS n FROM generate_series(1, 50) id")


@contextmanager
def blocker(database: Database, statement: str = "SELECT * FROM busy") -> Iterator[int]:
    """Keep a transaction open that has read the table, like a report or a forgotten terminal. Yield its pid."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET application_name = 'the long report'")
        cursor.execute(f"BEGIN; {statement}")
        yield connection.get_backend_pid()


@contextmanager
def traffic(database: Database) -> Iterator[list[float]]:
    """Run readers and writers; yield the duration of each of their statements in seconds."""
    took: list[float] = []
    ends = threading.Event()

    def work(statement: str) -> None:
        with closing(database.connect()) as connection, connection.cursor() as cursor:
            while not ends.is_set():
                began = time.monotonic()
                cursor.execute(statement)
                took.append(time.monotonic() - began)
                time.sleep(0.01)

    statements = ["SELECT count(*) FROM busy", "UPDATE busy SET n = n + 1 WHERE id = 1 + (random() * 49)::int"]
    threads = [threading.Thread(target=work, args=(statement,)) for statement in statements * 2]
    for thread in threads:
        thread.start()
    try:
        yield took
    finally:
        ends.set()
        for thread in threads:
            thread.join()


@pytest.mark.usefixtures("busy")
def test_the_application_never_waits_longer_than_one_attempt(
    runner: Runner,
    database: Database,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figure: Callable[[str], None],
) -> None:
    tree = write_ledger(tmp_path / "tree", 2, instead={2: ALTERS})
    seconds = rounds(4, 30)
    function = runner.start(tree, timeout_s=120, LOCK_TIMEOUT_MS=str(LOCK_TIMEOUT_MS), LOCK_RETRIES="50")
    function.invoke({"revision": "r01"})
    with traffic(database) as took, blocker(database) as pid:
        until = time.monotonic() + seconds
        function.start()
        eventually(lambda: time.monotonic() > until, within_s=seconds + 5)
        ours = max(took)
    answer = function.result()

    assert answer.error_type is None, answer.payload
    assert answer.payload["attempts"] > 1
    assert reached(database) == 2
    retried = runner.events("revision.retried")
    assert {(line["revision"], *line["blocking_pids"]) for line in retried} >= {("r02", pid)}
    assert [line["attempt"] for line in retried] == list(range(1, len(retried) + 1))
    assert ours <= LOCK_TIMEOUT_MS / 1000 + 0.5
    figure(f"longest wait of the application in {seconds} s: {ours:.2f} s (lock_timeout {LOCK_TIMEOUT_MS} ms)")


@pytest.mark.stress
@pytest.mark.usefixtures("busy")
def test_plain_alembic_makes_the_application_wait_as_long_as_the_blocker(
    runner: Runner,
    database: Database,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figure: Callable[[str], None],
) -> None:
    """The control of the test above: the same tree, database and traffic under plain Alembic."""
    tree = write_ledger(tmp_path / "tree", 2, instead={2: ALTERS})
    seconds = rounds(3, 30)
    runner.invoke(tree, {"revision": "r01"})
    with ExitStack() as processes, traffic(database) as took:
        with blocker(database):
            plain = processes.enter_context(
                killing(
                    subprocess.Popen(
                        [sys.executable, "-m", "alembic", "upgrade", "head"],
                        cwd=tree,
                        env={**os.environ, "DATABASE_URL": database.url},
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                )
            )
            eventually(lambda: is_running(database, "ALTER TABLE busy"))
            until = time.monotonic() + seconds
            eventually(lambda: time.monotonic() > until, within_s=seconds + 5)
        assert plain.wait() == 0
    assert max(took) >= seconds * 0.9
    figure(f"longest wait of the application in {seconds} s with plain alembic: {max(took):.2f} s")


@pytest.mark.usefixtures("busy")
def test_a_lock_that_is_not_to_be_had_names_who_has_it(runner: Runner, database: Database, tmp_path: Path) -> None:
    tree = write_ledger(tmp_path / "tree", 2, instead={2: ALTERS})

    with blocker(database) as pid:
        answer = runner.invoke(tree, LOCK_TIMEOUT_MS="500", LOCK_RETRIES="1")

    assert answer.error_type == "LockTimeout"
    assert f"the long report (pid {pid}" in answer.message
    assert "the database is at r01" in answer.message
    assert reached(database) == 1
    [failed] = runner.events("migration.failed")
    assert (failed["sqlstate"], failed["blocking_pids"]) == ("55P03", [pid])


@pytest.mark.stress
@pytest.mark.usefixtures("busy")
def test_a_version_table_that_is_locked_is_a_lock_timeout_too(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    function = runner.start(write_ledger(tmp_path / "tree", 2), LOCK_TIMEOUT_MS="500", LOCK_RETRIES="1")
    function.invoke({"revision": "r01"})

    with blocker(database, "LOCK TABLE alembic_version") as pid:
        answer = function.invoke()

    assert answer.error_type == "LockTimeout"
    assert f"(pid {pid}" in answer.message


@pytest.mark.stress
@pytest.mark.usefixtures("busy")
def test_a_deadlock_is_tried_again(runner: Runner, database: Database, tmp_path: Path) -> None:
    # PostgreSQL ends the one that notices, a second after it began to wait: the migration, which waits last.
    meets = sql("LOCK TABLE busy", "SELECT pg_sleep(2)", "LOCK TABLE other")
    tree = write_ledger(tmp_path / "tree", 2, instead={2: meets})
    execute(database, "CREATE TABLE other (id int)")
    function = runner.start(tree, LOCK_TIMEOUT_MS="20000")
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE other")
        function.start()
        eventually(lambda: is_running(database, "pg_sleep"))
        cursor.execute("LOCK TABLE busy; COMMIT")

    answer = function.result()

    assert answer.error_type is None, answer.payload
    assert answer.payload["attempts"] == 2
    assert "deadlock" in runner.events("revision.retried")[0]["message"]


@pytest.mark.usefixtures("busy")
def test_a_revision_that_has_committed_part_of_its_work_is_not_tried_again_blindly(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    parts = f"with op.get_context().autocommit_block():\n    op.execute('CREATE TABLE part ()')\n{ALTERS}"
    tree = write_ledger(tmp_path / "tree", 2, instead={2: parts})

    with blocker(database):
        answer = runner.invoke(tree, LOCK_TIMEOUT_MS="500")

    assert answer.error_type == "LockTimeout"
    assert "it had committed part of its work, so" in answer.message
    [failed] = runner.events("migration.failed")
    assert failed["partly_committed"] is True
    assert not runner.events("revision.retried")


@pytest.mark.usefixtures("busy")
def test_the_migration_lock_is_kept_over_a_pause_longer_than_idle_sessions_live(
    runner: Runner, database: Database, package: Path, tmp_path: Path
) -> None:
    tree = write_ledger(tmp_path / "tree", 2, instead={2: ALTERS})
    shorter = {
        "database.session.IDLE_SESSION_TIMEOUT_S": 2,
        "run.attempts._FIRST_BACKOFF_S": 8,
        "run.attempts._PING_EVERY_S": 0.5,
    }
    shorten(package, tree, tmp_path / f"package-{tree.name}", shorter)
    function = runner.start(tree, LOCK_TIMEOUT_MS="300")
    with blocker(database):
        function.start()
        eventually(lambda: runner.events("revision.retried"))

    answer = function.result()

    assert answer.error_type is None, answer.payload
    assert len(runner.events("lock.acquired")) == 1
    assert not runner.events("connection.retried")
