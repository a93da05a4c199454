"""Two targets that reach one place by different ways are found, also beside servers that do not answer."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.fleet import places
from lambda_migrate.fleet.waves import Tenant
from lambda_migrate.invocation.deadline import Deadline
from lambda_migrate.invocation.errors import ConfigurationError
from lambda_migrate.invocation.invocation import Invocation
from lambda_migrate.invocation.request import parse_request
from lambda_migrate.invocation.settings import read_settings
from tests.support.bystander import administer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database, Server


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses every connection, because its socket does not listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def invocation(database: Database, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Invocation:
    for name, value in emulator.settings().items():
        monkeypatch.setenv(name, value)
    allowed = '{"secret_id": ["*"], "database": ["*"], "schema": ["*"]}'
    given = {"STAGE": "test", "DB_SECRET_ID": "app/db", "DB_SSLROOTCERT": str(database.ca), "TARGETS_ALLOWED": allowed}
    # One second for an unreachable server, as long as for the whole comparison.
    monkeypatch.setattr(places, "_CONNECT_S", 1)
    monkeypatch.setattr(places, "_COMPARE_S", 1)
    return Invocation(parse_request({"action": "status"}), read_settings(given), Deadline.after(60), "test")


def test_servers_that_do_not_answer_leave_time_to_compare_the_others(
    invocation: Invocation, database: Database, put_secret: Callable[[object], str], closed_port: int
) -> None:
    dead = [{**database.secret, "host": host, "port": closed_port} for host in ("localhost", "127.0.0.1")]
    alive = [{**database.secret, "host": host} for host in ("localhost", "127.0.0.1")]
    tenants = [
        Tenant(name, {"secret_id": put_secret(secret), "schema": "a"})
        for name, secret in zip(("dead", "dead, too", "one", "other"), (*dead, *alive), strict=True)
    ]

    with pytest.raises(ConfigurationError, match="the targets 'one' and 'other' are both schema 'a'"):
        places.placed(invocation, tenants)


def test_a_silent_server_is_queried_for_few_of_its_default_schemas(
    invocation: Invocation, database: Database, put_secret: Callable[[object], str], closed_port: int
) -> None:
    secret = {**database.secret, "port": closed_port}
    tenants = [Tenant(f"t{number}", {"secret_id": put_secret(secret)}) for number in range(20)]
    began = invocation.deadline.left()

    found = places.placed(invocation, tenants)

    assert [bool(tenant.problem) for tenant in found] == [True] * 20
    assert began - invocation.deadline.left() < 10, "each attempt takes a second"


@pytest.mark.stress
def test_logins_that_find_no_free_session_between_others_are_no_silent_server(
    invocation: Invocation, database: Database, postgres_server: Server, put_secret: Callable[[object], str]
) -> None:
    administer(postgres_server, f"ALTER ROLE {database.user} CONNECTION LIMIT 0")
    refused = {**database.secret, "password": "another"}
    secrets = [database.secret, refused] * 4
    tenants = [Tenant(f"t{number}", {"secret_id": put_secret(secret)}) for number, secret in enumerate(secrets)]

    found = places.placed(invocation, tenants)

    # A refused password fails when its turn comes, and says so.
    assert [bool(tenant.problem) for tenant in found] == [True, False] * 4
