"""If a server restarts or is full, the run recovers or reports it, and the database is at a boundary."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from localcloud import account, postgres, testing
from tests.support.bystander import administer
from tests.support.functions import ROOT
from tests.support.ledger import empty, reached, write_ledger
from tests.support.old_server import old_server
from tests.support.samples import sampled_by_name
from tests.support.trees import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner


@pytest.fixture(scope="module")
def postgres_server(shared_run: Path, worker_id: str) -> Iterator[Server]:
    """This module's own server, in place of the shared one."""
    server = testing.start_postgres(ROOT, shared_run, name=f"restarted-{worker_id}")
    yield server
    postgres.stop(server.directory)


def test_a_server_that_restarts_under_a_run(
    runner: Runner,
    database: Database,
    postgres_server: Server,
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figure: Callable[[str], None],
) -> None:
    tree = write_ledger(tmp_path / "tree", 6, instead=dict.fromkeys(range(2, 7), sql("SELECT pg_sleep(0.3)")))
    function = runner.start(tree, timeout_s=60)
    function.invoke({"action": "history"})
    ended: Counter[str] = Counter()
    for number in range(rounds(1, 20)):
        empty(database)
        function.start()
        time.sleep(random.Random(number).uniform(0, 2))  # noqa: S311 - the moment is what is tried
        postgres.stop(postgres_server.directory)
        postgres.start(ROOT, postgres_server.directory, durable=False)

        answer = function.result()

        at = reached(database)
        if answer.error_type is None:
            assert at == 6
            assert [entry["revision"] for entry in answer.payload["applied"]] == [f"r{n:02}" for n in range(1, 7)]
        else:
            assert answer.error_type == "DatabaseUnavailable", answer.payload
        ended[answer.error_type or "ok"] += 1
        assert function.invoke().error_type is None
        assert reached(database) == 6
    figure(f"runs under a restart: {dict(ended)}")


@pytest.fixture
def replica(postgres_server: Server) -> Iterator[Server]:
    """The server as a replica of another one, until it is promoted."""
    postgres.stop(postgres_server.directory)
    data = account.usable_folder(ROOT / ".local", postgres_server.directory) / "cluster"
    signal = data / "standby.signal"
    signal.touch()
    os.chown(signal, data.stat().st_uid, data.stat().st_gid)
    yield postgres.start(ROOT, postgres_server.directory, durable=False)
    with closing(postgres_server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote() END")


@pytest.mark.stress
def test_a_read_replica_is_refused(runner: Runner, database: Database, replica: Server, tmp_path: Path) -> None:
    answer = runner.invoke(write_ledger(tmp_path / "tree", 2))

    assert answer.error_type == "ConfigurationError"
    assert f"{database.host}:{replica.port} is a read replica" in answer.message


@pytest.mark.stress
@pytest.mark.usefixtures("database")
def test_a_replica_that_takes_over_is_waited_for(runner: Runner, replica: Server, tmp_path: Path) -> None:
    promote = threading.Timer(2, administer, (replica, "SELECT pg_promote()"))
    promote.start()

    answer = runner.invoke(write_ledger(tmp_path / "tree", 2))

    promote.join()
    assert answer.error_type is None, answer.payload


def test_a_server_that_is_too_old_is_refused(runner: Runner, tmp_path: Path) -> None:
    with old_server("12.22") as port:
        answer = runner.invoke(
            write_ledger(tmp_path / "tree", 2), DB_HOST="127.0.0.1", DB_PORT=str(port), DB_SSLMODE="disable"
        )

    assert answer.error_type == "ConfigurationError"
    assert "is PostgreSQL 12; 13 or later is needed" in answer.message


@pytest.mark.parametrize(
    "limit", sampled_by_name({"no room for us": 0, "no room for env.py": 1}, {"no room for env.py"})
)
def test_too_many_connections_may_pass(
    runner: Runner, database: Database, postgres_server: Server, tmp_path: Path, limit: int
) -> None:
    function = runner.start(write_ledger(tmp_path / "tree", 2))
    function.invoke({"action": "history"})
    administer(postgres_server, f"ALTER ROLE {database.user} CONNECTION LIMIT {limit}")
    lift = threading.Timer(2, administer, (postgres_server, f"ALTER ROLE {database.user} CONNECTION LIMIT -1"))
    lift.start()

    answer = function.invoke()

    lift.join()
    assert answer.error_type is None, answer.payload
    assert reached(database) == 2


def test_too_many_connections_for_good(
    runner: Runner, database: Database, postgres_server: Server, tmp_path: Path
) -> None:
    administer(postgres_server, f"ALTER ROLE {database.user} CONNECTION LIMIT 0")

    answer = runner.invoke(write_ledger(tmp_path / "tree", 1), CONNECT_TIMEOUT_S="1")

    assert answer.error_type == "DatabaseUnavailable"
    assert "too many connections" in answer.message
