"""No run fails if the password is rotated while migrations run."""

from __future__ import annotations

import json
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import psycopg2.extensions
import pytest

from localcloud import postgres
from localcloud.clients import client
from tests.support.bystander import administer
from tests.support.ledger import applied_ids, reached, write_ledger
from tests.support.trees import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database, Server
    from tests.support.functions import Runner

ROTATED_EVERY_S = 0.2


@pytest.fixture
def rotate(
    runner: Runner, database: Database, emulator: Emulator, postgres_server: Server
) -> Callable[[str, str], None]:
    """Change a login's password as Secrets Manager does: first on the server, then in the secret."""
    manager = client(emulator, "secretsmanager")

    def change(user: str, password: str) -> None:
        with closing(postgres_server.connect()) as connection, connection.cursor() as cursor:
            role = psycopg2.extensions.quote_ident(user, connection)
            cursor.execute(f"ALTER ROLE {role} PASSWORD %s", (password,))
        text = json.dumps({**database.secret, "username": user, "password": password})
        manager.put_secret_value(SecretId=runner.environment["DB_SECRET_ID"], SecretString=text)

    return change


@contextmanager
def again_and_again(change: Callable[[int], None]) -> Iterator[list[int]]:
    """Call a function at intervals in a thread. Yield the list of its results."""
    ends = threading.Event()
    done: list[int] = []

    def work() -> None:
        while not ends.wait(ROTATED_EVERY_S):
            change(len(done))
            done.append(len(done))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        ends.set()
        thread.join()


def test_no_run_fails_while_the_password_changes_all_the_time(
    runner: Runner,
    database: Database,
    rotate: Callable[[str, str], None],
    tmp_path: Path,
    rounds: Callable[[int, int], int],
    figure: Callable[[str], None],
) -> None:
    runs = rounds(4, 40)
    tree = write_ledger(tmp_path / "tree", runs)
    function = runner.start(tree, timeout_s=120)

    with again_and_again(lambda number: rotate(database.user, f"{database.password}{number}")) as rotations:
        answers = [function.invoke({"revision": "+1"}) for _ in range(runs)]

    assert {answer.error_type for answer in answers} == {None}, [answer.payload for answer in answers]
    assert [applied_ids(answer) for answer in answers] == [[f"r{number:02}"] for number in range(1, runs + 1)]
    assert rotations
    slowest = max(answer.duration_s for answer in answers)
    figure(f"{runs} runs ok during {len(rotations)} rotations, the slowest took {slowest:.1f} s")


@pytest.fixture
def logins(database: Database, postgres_server: Server) -> Iterator[list[str]]:
    """Two users that act as the owner, of which a rotation of the kind "alternating users" changes one at a time."""
    names = [f"{database.name}_{letter}" for letter in "ab"]
    for name in names:
        postgres.create_role(postgres_server, name, database.password)
        administer(postgres_server, f"GRANT {database.user} TO {name}", f"ALTER ROLE {name} SET role = {database.user}")
    yield names
    for name in names:
        administer(postgres_server, f"DROP ROLE {name}")


@pytest.mark.stress
def test_users_that_alternate(
    runner: Runner,
    database: Database,
    logins: list[str],
    rotate: Callable[[str, str], None],
    tmp_path: Path,
    rounds: Callable[[int, int], int],
) -> None:
    runs = rounds(4, 20)
    changes = {number: sql(f"ALTER TABLE t01 ADD COLUMN c{number} int") for number in range(2, runs + 1)}
    function = runner.start(write_ledger(tmp_path / "tree", runs, instead=changes), timeout_s=120)
    rotate(logins[0], f"{database.password}-first")

    with again_and_again(lambda number: rotate(logins[number % 2], f"{database.password}{number}")):
        answers = [function.invoke({"revision": "+1"}) for _ in range(runs)]

    assert {answer.error_type for answer in answers} == {None}, [answer.payload for answer in answers]
    assert reached(database) == runs


@pytest.mark.stress
def test_a_login_that_acts_as_the_owner_may_cancel_its_own_statement(
    runner: Runner, database: Database, logins: list[str], rotate: Callable[[str, str], None], tmp_path: Path
) -> None:
    waits = "try:\n    op.execute('SELECT pg_sleep(100)')\nfinally:\n    print('it was ended')"
    tree = write_ledger(tmp_path / "tree", 2, instead={2: waits})
    rotate(logins[0], f"{database.password}-first")
    function = runner.start(tree, timeout_s=8, DEADLINE_RESERVE_MS="3000")

    answer = function.invoke()

    assert answer.error_type == "MigrationIncomplete", answer.payload
    assert [line["message"] for line in runner.events("backend.output")] == ["it was ended"]
