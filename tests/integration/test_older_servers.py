"""A preflight and a fingerprint on the oldest server that can be installed. `make stress-postgres` runs more on it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from lambda_migrate.database.common import Server as ServerOfSession
from lambda_migrate.database.credentials import Credentials
from lambda_migrate.database.preflight_queries import PreflightQueries
from lambda_migrate.database.schema import read_schema
from lambda_migrate.database.session import Session
from lambda_migrate.invocation.deadline import Deadline
from lambda_migrate.run.revision_preflight import preflight_of
from localcloud import binaries, postgres
from tests.integration.test_preflight import FOREIGN, NOT_NULL, TYPE, UNIQUE, check, measured
from tests.support.bystander import execute
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localcloud.postgres import Database

TABLE = "CREATE TABLE users (id int PRIMARY KEY, mail text, boss int, age text)"
ROWS = "INSERT INTO users VALUES (1, NULL, 7, '1'), (2, 'a', 1, '12345'), (3, 'a', 1, 'n/a')"
NUMBER = check("type", ["age"], "SELECT * FROM users WHERE NOT pg_input_is_valid(age::text, 'integer')")


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    folder: Path = tmp_path_factory.mktemp("oldest") / "postgres"
    server = postgres.start(ROOT, folder, durable=False, version=min(binaries.VERSIONS))
    yield server.database("postgres")
    postgres.remove(ROOT, folder)


def preflight(database: Database, *checks: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    with closing(database.connect()) as opened:
        opened.autocommit = True
        credentials = Credentials(database.host, database.port, database.name, "", "", "verify-full", database.ca)
        server = ServerOfSession(opened.server_version // 10000, "", database.name)
        session = Session(opened, opened.info.backend_pid, server, credentials, Deadline.after(60))
        queries = PreflightQueries(session, "public", 10_000, None, session.deadline)
        return preflight_of(queries, measured(*checks), [], 10, {}).entry(), queries.holdups(["users"])


def test_checks_blockers_and_causes_of_delay_are_found(oldest: Database) -> None:
    execute(oldest, TABLE, ROWS)
    with closing(oldest.connect()) as holder, holder.cursor() as cursor:
        holder.autocommit = False
        cursor.execute("SELECT pg_sleep(1.1) FROM users LIMIT 1")
        found, holdups = preflight(oldest, NOT_NULL, UNIQUE, FOREIGN, TYPE, NUMBER)

    results = [(each["check"], each["result"], each["violations"]) for each in found["checks"]]
    assert results == [
        ("not_null", "failed", 1), ("unique", "failed", 1), ("foreign_key", "failed", 1), ("type", "failed", 1),
        # The server has no such function: nothing is known of the rows.
        ("type", "timed_out", None),
    ]  # fmt: skip
    assert [each["kind"] for each in found["blockers"]] == ["idle in transaction"]
    assert found["tables"][0]["bytes"] > 0
    assert holdups == []


def test_a_schema_has_the_fingerprint_that_it_has_on_the_newest_server(oldest: Database, database: Database) -> None:
    statements = (
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TABLE things (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, m mood NOT NULL, word varchar(9))",
        "ALTER TABLE things ADD CHECK (word IN ('a', 'b')), ADD UNIQUE (word, m)",
        "CREATE VIEW shown AS SELECT t.id, t.word FROM things t WHERE t.m = 'ok'",
        "CREATE PROCEDURE p(IN a int, b text) LANGUAGE sql AS 'SELECT 1'",
    )
    fingerprints = set()
    for each in (oldest, database):
        with closing(each.connect()) as opened, opened.cursor() as cursor:
            cursor.execute("CREATE SCHEMA home; SET search_path = home")
            for statement in statements:
                cursor.execute(statement)
            fingerprints.add(read_schema(opened, "home", everything=False).fingerprint)
    assert len(fingerprints) == 1
