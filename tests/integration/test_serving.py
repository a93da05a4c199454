"""The start of the reference backend: it migrates to head and then serves, alone or with replicas."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic.script import ScriptDirectory

from lambda_migrate.database.common import LOCK_CLASS
from lambda_migrate.database.migration_lock import lock_keys
from localcloud import ports
from tests.support.bystander import query
from tests.support.ledger import is_running
from tests.support.processes import killing
from tests.support.samples import sampled
from tests.support.trees import Rev, sql, write_revision
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from localcloud.postgres import Database

BACK = Path(__file__).parents[2] / "back"
HEAD = ScriptDirectory(str(BACK / "alembic")).get_current_head() or ""
WAITING = "Another process is migrating the database; waiting for it."


class Server:
    """`python -m app` in a copy of the backend, as the image's command runs it."""

    def __init__(self, back: Path, database: Database) -> None:
        self.port = ports.choose(None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app"],
            cwd=back,
            env={
                **os.environ,
                "DATABASE_URL": database.url,
                "PORT": str(self.port),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONUNBUFFERED": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def line(self) -> str:
        """Wait for the next line that the server prints, and return it."""
        assert self.process.stdout
        return self.process.stdout.readline().rstrip()

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return the first answer to GET /health."""
        while True:
            with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
                try:
                    connection.request("GET", "/health")
                    response = connection.getresponse()
                    return response.status, json.load(response)
                except ConnectionError:
                    time.sleep(0.02)
            assert self.process.poll() is None, self.log()

    def healthy(self) -> dict[str, Any]:
        """Return the first answer to GET /health with status 200."""
        while True:
            status, body = self.health()
            if status == 200:
                return body
            assert self.process.poll() is None
            time.sleep(0.05)

    def log(self) -> list[str]:
        """Wait until the server ends, and return the lines that it printed and that were not read yet."""
        out, _ = self.process.communicate()
        return str(out).splitlines()


@pytest.fixture
def back(tmp_path: Path) -> Path:
    return shutil.copytree(BACK, tmp_path / "back", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def start(back: Path, database: Database) -> Iterator[Callable[[], Server]]:
    with ExitStack() as processes:

        def start() -> Server:
            server = Server(back, database)
            processes.enter_context(killing(server.process))
            return server

        yield start


@pytest.fixture
def migrating_elsewhere(database: Database) -> AbstractContextManager[None]:
    """Hold the migration lock in another session. The function and the backend use the same key."""

    @contextmanager
    def held() -> Iterator[None]:
        with closing(database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s, %s)", (LOCK_CLASS, lock_keys(None, None)[0]))
            yield

    return held()


def add(back: Path, *statements: str) -> str:
    """One more revision, and its id."""
    revision = Rev("5e2100000001", upgrade=sql(*statements), description="One more")
    write_revision(back / "alembic" / "versions", revision, HEAD)
    return revision.id


@pytest.mark.stress
def test_health_is_503_until_the_database_is_at_head_and_shows_both_revisions(
    start: Callable[[], Server], migrating_elsewhere: AbstractContextManager[None], back: Path
) -> None:
    with migrating_elsewhere:
        server = start()
        assert server.line() == WAITING
        status, body = server.health()

        assert (status, body["revision"], body["head"]) == (503, None, HEAD)

    assert server.healthy() == {"status": "ok", "revision": HEAD, "head": HEAD}

    # The tree is mounted in development: a revision that comes is seen, and so is that it has not been applied.
    newer = add(back, "SELECT 1")
    status, body = server.health()
    assert (status, body["revision"], body["head"]) == (503, HEAD, newer)

    server.process.send_signal(signal.SIGTERM)
    log = server.log()
    assert server.process.returncode == 0
    assert log[-1] == f"The database is at {HEAD}; serving on port {server.port}."


def test_replicas_that_start_together_apply_each_revision_once(
    start: Callable[[], Server], back: Path, rounds: Callable[[int, int], int]
) -> None:
    # Slow enough for all of them to arrive, and it cannot be done twice.
    add(back, "SELECT pg_sleep(1)", "CREATE TABLE once (id integer)")

    replicas = [start() for _ in range(rounds(2, 3))]

    assert {replica.healthy()["status"] for replica in replicas} == {"ok"}
    for replica in replicas:
        replica.process.terminate()
    applied = [sum("Running upgrade" in line for line in replica.log()) for replica in replicas]
    assert sorted(applied) == [*[0] * (len(replicas) - 1), len(list((back / "alembic" / "versions").glob("*.py")))]


def test_a_failing_migration_ends_the_server_with_the_reason_in_its_last_line(
    start: Callable[[], Server], back: Path
) -> None:
    add(back, "CREATE TABLE half (id integer)", "DROP TABLE nowhere")

    server = start()
    log = server.log()

    assert server.process.returncode == 1
    assert re.fullmatch(
        r"FAILED: the migration failed, nothing is served: alembic/versions/5e2100000001_\.py, line \d+: "
        r'UndefinedTable: table "nowhere" does not exist; correct it and start again: docker compose up -d',
        log[-1],
    )


def test_sigterm_in_a_migration_ends_its_statement_and_the_next_start_continues(
    start: Callable[[], Server], database: Database, back: Path
) -> None:
    add(back, "SELECT pg_sleep(3600)")
    server = start()
    eventually(lambda: is_running(database, "pg_sleep"))

    server.process.terminate()
    log = server.log()

    assert server.process.returncode == 128 + signal.SIGTERM
    # Alembic commits before an autocommit block, so a part of the year stays.
    [(revision,)] = query(database, "SELECT version_num FROM alembic_version")
    assert log[-1] == (
        "STOPPED by SIGTERM, in the middle of a migration: its statement was cancelled;"
        f" the database is at {revision}; the next start goes on from there"
    )
    assert not is_running(database, "pg_sleep")
    add(back, "SELECT 1")
    assert start().healthy()["status"] == "ok"


@pytest.mark.stress
def test_sigterm_ends_a_server_that_waits_for_another_and_is_logged(
    start: Callable[[], Server], migrating_elsewhere: AbstractContextManager[None]
) -> None:
    with migrating_elsewhere:
        server = start()
        # It answers /health before it asks for the lock; this line shows that it has asked.
        assert server.line() == WAITING
        server.process.terminate()
        log = server.log()

    assert server.process.returncode == 0
    assert log == ["STOPPED by SIGTERM, before it migrated anything"]


# --- the alembic command beside a server that starts ---


def alembic(back: Path, database: Database, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=back,
        env={**os.environ, "DATABASE_URL": database.url, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    "arguments",
    sampled(
        ["upgrade head", "downgrade base", "stamp head", "revision --autogenerate -m nothing_new", "check"],
        ["upgrade head"],
    ),
)
def test_the_alembic_command_waits_for_a_migration_at_work(
    back: Path, database: Database, migrating_elsewhere: AbstractContextManager[None], arguments: str
) -> None:
    with migrating_elsewhere, killing(alembic(back, database, *arguments.split())) as command:
        assert command.stdout
        first = command.stdout.readline()
        assert first.strip() == WAITING
        assert query(database, "SELECT to_regclass('alembic_version')") == [(None,)]


@pytest.mark.stress
def test_the_alembic_command_only_looks_without_waiting(
    back: Path, database: Database, migrating_elsewhere: AbstractContextManager[None]
) -> None:
    with migrating_elsewhere, killing(alembic(back, database, "current")) as command:
        out, _ = command.communicate()

    assert command.returncode == 0, out
    assert "waiting" not in out


@pytest.mark.stress
@pytest.mark.parametrize("first", ["server", "command"])
@pytest.mark.parametrize("_round", range(1, 21))
def test_a_server_that_starts_and_the_alembic_command_at_once_both_end_at_head(
    start: Callable[[], Server], back: Path, database: Database, first: str, _round: int
) -> None:
    if first == "command":
        command = alembic(back, database, "upgrade", "head")
        server = start()
    else:
        server = start()
        command = alembic(back, database, "upgrade", "head")
    with killing(command):
        out, _ = command.communicate()
        assert command.returncode == 0, out
        assert server.healthy()["revision"] == HEAD
        server.process.terminate()
        lines = [*out.splitlines(), *server.log()]

    assert server.process.returncode == 0
    assert sum("Running upgrade" in line for line in lines) == len(list((back / "alembic" / "versions").glob("*.py")))
