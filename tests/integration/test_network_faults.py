"""After any network fault, the database is at a boundary, and the answer has the committed revisions."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.bystander import query
from tests.support.ledger import (
    CONTRACT_ERRORS,
    applied_ids,
    concurrent_index,
    empty,
    is_running,
    lock_holders,
    reached,
    sessions,
    write_ledger,
)
from tests.support.proxy import Fault, Proxy, random_cut
from tests.support.shortened import shorten
from tests.support.trees import sql
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.postgres import Database
    from localcloud.runtime_api import Answer
    from tests.support.functions import Runner

FAULTS: tuple[Fault, ...] = ("cut", "reset", "blackhole", "cut", "delay", "refuse")


@pytest.fixture
def proxy(database: Database, runner: Runner) -> Iterator[Proxy]:
    with Proxy((database.host, database.port)) as proxy:
        runner.environment.update(DB_HOST="127.0.0.1", DB_PORT=str(proxy.port))
        yield proxy


def check_message_and_result(answer: Answer, at: int, before: int) -> None:
    """Assert that the answer agrees with the version table, which is read after the run."""
    if answer.error_type is None:
        assert answer.payload["revision"] == (f"r{at:02}" if at else None)
        assert applied_ids(answer) == [f"r{number:02}" for number in range(before + 1, at + 1)]
    else:
        assert answer.error_type in CONTRACT_ERRORS, answer.payload
        revision = re.search(r"the database is at (\w+)", answer.message)
        assert revision is None or revision[1] == (f"r{at:02}" if at else "base"), answer.message


def test_whatever_the_network_does_the_answer_is_true_and_the_next_run_finishes(
    runner: Runner,
    database: Database,
    proxy: Proxy,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figure: Callable[[str], None],
) -> None:
    instead = {4: concurrent_index("ix", "t01"), 6: sql("SELECT pg_sleep(0.1)")}
    tree = write_ledger(tmp_path / "tree", 8, instead=instead)
    proxy.delay_s = rounds(40, 200) / 1000
    timeout_s = rounds(10, 16)
    faulty = runner.start(tree, timeout_s=timeout_s, DEADLINE_RESERVE_MS="4000", CONNECT_TIMEOUT_S="6")
    clean = runner.start(tree, DB_HOST=None, DB_PORT=None)
    longest = 0.0
    ended: Counter[str] = Counter()
    for number in range(rounds(3, 100)):
        empty(database)
        chance = random.Random(number)  # noqa: S311 - the fault is what is tried
        fault = FAULTS[number % len(FAULTS)]
        proxy.cut_after = random_cut(number)
        # A network goes bad at once or under way, and some of the time it gets well again.
        proxy.fault = "none" if fault in {"reset", "blackhole", "refuse"} else fault
        goes_bad = threading.Timer(chance.uniform(0.0, 0.6), change, (proxy, fault))
        gets_well = threading.Timer(chance.uniform(1.0, 4.0), change, (proxy, "none"))
        goes_bad.start()
        if number % 2:
            gets_well.start()

        answer = faulty.invoke()

        goes_bad.cancel()
        gets_well.cancel()
        goes_bad.join()
        change(proxy, "none")
        proxy.reset_all()
        longest = max(longest, answer.duration_s)
        assert answer.duration_s < timeout_s
        eventually(partial(are_gone, database, answer.request_id), of="its sessions' end")
        at = reached(database)
        check_message_and_result(answer, at, before=0)
        ended[f"{fault}: {answer.error_type or 'ok'}"] += 1
        finishing = clean.invoke()
        assert finishing.error_type is None, finishing.payload
        assert reached(database) == 8
        check_message_and_result(finishing, 8, before=at)
        assert query(database, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix'::regclass") == [(True,)]
    figure(f"longest run {longest:.1f} s of {timeout_s}; {dict(sorted(ended.items()))}")


def are_gone(database: Database, request: str) -> bool:
    return not sessions(database, request)


def change(proxy: Proxy, fault: Fault) -> None:
    proxy.fault = fault
    if fault in {"reset", "refuse"}:
        proxy.reset_all()


def test_a_commit_whose_answer_was_lost_counts_as_applied(runner: Runner, database: Database, tmp_path: Path) -> None:
    # The revision's own connection is ended by the server after its commit and before its answer is read.
    lost = """
import sqlalchemy
def end(connection):
    connection.connection.dbapi_connection.commit()
    import os, socket
    socket.socket(fileno=os.dup(connection.connection.dbapi_connection.fileno())).shutdown(socket.SHUT_RDWR)
sqlalchemy.event.listen(op.get_bind(), "commit", end)
"""
    tree = write_ledger(tmp_path / "tree", 4, instead={2: lost})

    answer = runner.invoke(tree)

    assert answer.error_type is None, answer.payload
    assert applied_ids(answer) == ["r01", "r02", "r03", "r04"]
    assert answer.payload["attempts"] == 2
    assert reached(database) == 4


def test_a_relative_upgrade_is_not_taken_twice_after_a_lost_connection(
    runner: Runner, database: Database, tmp_path: Path
) -> None:
    dies_once = (
        "if not op.get_bind().exec_driver_sql(\"SELECT to_regclass('died')\").scalar():\n"
        "    with op.get_context().autocommit_block():\n"
        "        op.get_bind().connection.dbapi_connection.cursor().execute('CREATE TABLE died ()')\n"
        "    op.execute('SELECT pg_terminate_backend(pg_backend_pid())')"
    )
    tree = write_ledger(tmp_path / "tree", 5, instead={2: dies_once})

    answer = runner.invoke(tree, {"revision": "+3"})

    assert answer.error_type is None, answer.payload
    assert applied_ids(answer) == ["r01", "r02", "r03"]
    assert reached(database) == 3


@pytest.mark.parametrize(
    "moment,body",
    [
        pytest.param("in a transaction", "op.execute('SELECT 1')\ntime.sleep(100)", marks=pytest.mark.stress),
        pytest.param(
            "between transactions",
            "with op.get_context().autocommit_block():\n    time.sleep(100)",
            marks=pytest.mark.stress,
        ),
        ("in a statement", sql("SELECT pg_sleep(3)")),
    ],
    ids=["in a transaction", "between transactions", "in a statement"],
)
def test_a_partition_without_a_word_leaves_no_session_and_no_lock(
    runner: Runner,
    database: Database,
    proxy: Proxy,
    package: Path,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figure: Callable[[str], None],
    moment: str,
    body: str,
) -> None:
    tree = write_ledger(tmp_path / "tree", 2, instead={2: body})
    if rounds(1, 0):
        shorter = {
            "database.session.IDLE_SESSION_TIMEOUT_S": 3,
            "database.common.IDLE_IN_TRANSACTION_TIMEOUT_S": 5,
        }
        shorten(package, tree, tmp_path / f"package-{tree.name}", shorter)
    function = runner.start(tree, timeout_s=200)
    request = function.start()
    eventually(lambda: [line for line in runner.events("revision.started") if line["revision"] == "r02"])
    if "statement" in moment:
        eventually(lambda: is_running(database, "pg_sleep"))
    # What the server sends and what the function sends goes nowhere, and no end of a connection is seen either.
    proxy.fault = "blackhole"
    cut = time.monotonic()
    function.kill()

    eventually(
        lambda: not sessions(database, request) and not lock_holders(database), within_s=60, of="the server's own end"
    )
    figure(f"{moment}: gone {time.monotonic() - cut:.1f} s after the partition")
    assert reached(database) == 1
