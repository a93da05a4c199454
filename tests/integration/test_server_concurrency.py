"""A rollout's runs with one login on one server never exceed the limit, across all databases."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.database.common import Server as Which
from lambda_migrate.database.credentials import Credentials
from lambda_migrate.database.server_limit import ServerBusy, leave_if_busy
from lambda_migrate.database.session import Session
from lambda_migrate.invocation.deadline import Deadline
from localcloud import postgres
from tests.support.bystander import administer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localcloud.postgres import Database, Server


@pytest.fixture
def neighbour(postgres_server: Server, database: Database) -> Iterator[Database]:
    """Another tenant's database, with an unrelated role."""
    name = f"{database.name}_b"
    postgres.create_role(postgres_server, name, "password")
    postgres.create_database(postgres_server, name, name)
    yield postgres_server.database(name, name, "password")
    postgres.drop_database(postgres_server, name, name)


@pytest.fixture
def second_database(postgres_server: Server, database: Database) -> Iterator[Database]:
    """Another database of the same login."""
    name = f"{database.name}_c"
    postgres.create_database(postgres_server, name, database.user)
    yield postgres_server.database(name, database.user, database.password)
    administer(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


class Runs:
    """Started runs: sessions with the names of the function's own sessions."""

    def __init__(self, opened: ExitStack, function: str) -> None:
        self._opened = opened
        self._function = function

    def begin(self, database: Database, request: str) -> Session:
        """A session of a run before the run counts."""
        connection = self._opened.enter_context(closing(database.connect()))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('application_name', %s, false)", (self.name(request),))
        login = Credentials("", 1, "", "", "", "", None)  # type: ignore[arg-type] # nobody logs in with it
        return Session(connection, connection.info.backend_pid, Which(0, "", ""), login, Deadline.after(60))

    def name(self, request: str) -> str:
        return f"{self._function}/{request}"


@pytest.fixture
def runs(database: Database) -> Iterator[Runs]:
    # As long as the function's own: what is counted is the whole name up to the request.
    with ExitStack() as opened:
        yield Runs(opened, f"{database.name[-20:]}-dev")


def test_a_run_leaves_when_as_many_others_as_allowed_are_on_the_server(
    runs: Runs, database: Database, second_database: Database
) -> None:
    runs.begin(second_database, "first")
    runs.begin(second_database, "first")  # env.py's own session is of the same run
    second = runs.begin(database, "second")

    leave_if_busy(second, runs.name("second"), 2)
    third = runs.begin(database, "third")

    with pytest.raises(ServerBusy, match=r"2 runs are active on this server, and .*`rollout\.per_server` .* allows 2"):
        leave_if_busy(third, runs.name("third"), 2)
    leave_if_busy(third, runs.name("third"), 3)


def test_other_functions_and_the_application_are_not_counted(runs: Runs, database: Database) -> None:
    with ExitStack() as opened:
        Runs(opened, "the-application").begin(database, "x")
        Runs(opened, f"{runs.name('')[:-1]}2").begin(database, "x")
        own = runs.begin(database, "own")

        leave_if_busy(own, runs.name("own"), 1)


def test_another_role_cannot_make_the_server_look_busy(runs: Runs, database: Database, neighbour: Database) -> None:
    for number in range(5):
        runs.begin(neighbour, f"fake-{number}")
    own = runs.begin(database, "own")

    leave_if_busy(own, runs.name("own"), 1)


def test_of_any_number_that_come_at_once_never_more_than_allowed_stay(runs: Runs, database: Database) -> None:
    requests = [str(number) for number in range(6)]
    sessions = {request: runs.begin(database, request) for request in requests}
    stayed = []

    for request, session in sessions.items():
        try:
            leave_if_busy(session, runs.name(request), 2)
            stayed.append(request)
        except ServerBusy:
            session.close()

    assert len(stayed) <= 2
