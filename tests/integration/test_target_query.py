"""The query of a rollout is read as it is listed, so that its size needs no memory."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.database.common import Server
from lambda_migrate.database.credentials import Credentials
from lambda_migrate.database.session import Session
from lambda_migrate.fleet import targets
from lambda_migrate.invocation.deadline import Deadline
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.invocation import Invocation
from lambda_migrate.invocation.request import parse_request
from lambda_migrate.invocation.settings import read_settings

if TYPE_CHECKING:
    from localcloud.postgres import Database


@pytest.fixture
def invocation(database: Database, monkeypatch: pytest.MonkeyPatch) -> Invocation:
    """An invocation whose session is on this test's database, without a secret."""
    deadline = Deadline.after(60)

    def open_session(_: Invocation) -> Session:
        opened = database.connect()
        opened.autocommit = True
        server = Server(opened.server_version // 10000, "", database.name)
        credentials = Credentials(database.host, database.port, database.name, "", "", "verify-full", database.ca)
        return Session(opened, opened.info.backend_pid, server, credentials, deadline, path=("public",))

    monkeypatch.setattr(targets, "open_session", open_session)
    settings = read_settings({"STAGE": "dev", "DB_SECRET_ID": "app/db"})
    return Invocation(parse_request({"action": "status"}), settings, deadline, "test")


def test_rows_beyond_those_that_are_needed_are_not_read(invocation: Invocation) -> None:
    billion = "SELECT generate_series(1, 1000000000) AS schema, '100%' AS server"

    rows = [*islice(targets.queried(invocation, billion), 15_000)]

    assert rows[-1] == {"schema": 15_000, "server": "100%"}


@pytest.mark.parametrize("end", ["", ";", " -- the end"])
def test_a_query_may_be_empty_and_end_as_people_end_it(invocation: Invocation, end: str) -> None:
    assert [*targets.queried(invocation, f"WITH few AS (SELECT 'a' AS schema) TABLE few{end}")] == [{"schema": "a"}]
    assert [*targets.queried(invocation, f"SELECT 'a' AS schema WHERE false{end}")] == []


@pytest.mark.parametrize(
    "query",
    [
        "UPDATE pg_class SET relname = 'x'",
        "SELECT 'a' AS schema; SELECT 'b' AS schema",
        "SHOW server_version",
        "SELECT 1 / 0 AS name",
    ],
)
def test_another_statement_is_refused(invocation: Invocation, query: str) -> None:
    with pytest.raises(ConfigurationError, match="the query of `rollout` failed; it must be one SELECT"):
        next(iter(targets.queried(invocation, query)))
