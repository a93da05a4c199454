"""The deployed function as its callers see it: the aws command, boto3, and the log in CloudWatch."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from localcloud import postgres, testing
from tests.support.bystander import query
from tests.support.checkout import ROOT
from tests.support.samples import sampled
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database, Server
    from tests.e2e.conftest import Backend, Deployed

# One worker for all of them: there is one function, and deploying it is what takes the time.
pytestmark = pytest.mark.xdist_group("e2e")


def version_of(database: Database) -> list[str]:
    return [row[0] for row in query(database, "SELECT version_num FROM alembic_version")]


def tables_of(database: Database) -> set[str]:
    sql = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    return {row[0] for row in query(database, sql)}


# --- the main job ---


@pytest.mark.stress
def test_an_empty_database_is_brought_to_head_by_the_aws_command(
    function: Deployed, database: Database, backend: Backend
) -> None:
    answer = function.aws_lambda_invoke()

    assert (answer.exit_code, answer.result["status"]) == (0, "ok")
    assert version_of(database) == [backend.head]


def test_the_answer_file_holds_every_field_of_the_contract(
    function: Deployed, database: Database, backend: Backend
) -> None:
    result = function.aws_lambda_invoke().result

    assert tuple(applied.pop("revision") for applied in result["applied"]) == backend.revisions
    assert all(applied.keys() == {"description", "duration_ms"} for applied in result.pop("applied"))
    assert len(result.pop("request_id")) == len("00000000-0000-0000-0000-000000000000")
    assert result.pop("duration_ms") > 0
    assert result == {
        "status": "ok",
        "action": "upgrade",
        "stage": "e2e",
        "database": database.name,
        "schema": None,
        "previous_revision": None,
        "revision": backend.head,
        "up_to_date": True,
        "pending": [],
        "attempts": 1,
        "lock_wait_ms": 0,
    }


def test_a_second_run_has_nothing_to_apply(function: Deployed, backend: Backend) -> None:
    function.invoke()

    result = function.invoke().result

    assert (result["applied"], result["previous_revision"], result["revision"]) == ([], backend.head, backend.head)


@pytest.mark.stress
@pytest.mark.parametrize("payload", sampled(["null", "{}", '{"action": "upgrade"}'], {"null"}))
def test_whatever_asks_for_the_default_upgrades_to_head(function: Deployed, payload: str, backend: Backend) -> None:
    result = function.aws_lambda_invoke("--payload", payload).result

    assert result["revision"] == backend.head


@pytest.mark.stress
def test_an_upgrade_stops_at_the_requested_revision(function: Deployed, database: Database, backend: Backend) -> None:
    function.aws_lambda_invoke("--payload", json.dumps({"action": "upgrade", "revision": backend.revisions[2]}))

    assert version_of(database) == [backend.revisions[2]]


# --- what a caller did wrong ---


WRONG: list[object] = [{"actoin": "upgrade"}, {"action": "upgrad"}, {"revision": 3}, [], "upgrade"]


@pytest.mark.parametrize("event", sampled(WRONG, WRONG[2:4]))
def test_a_typo_in_the_event_is_refused_and_nothing_is_touched(
    function: Deployed, database: Database, event: object
) -> None:
    answer = function.invoke(event)

    assert (answer.function_error, answer.error_type) == ("Unhandled", "InvalidRequest")
    assert tables_of(database) == set()


# --- credentials ---


def test_a_password_of_every_character_logs_in(
    function: Deployed, database: Database, postgres_server: Server, backend: Backend
) -> None:
    password = f"{database.password[:16]}{''.join(map(chr, range(32, 127)))}é漢ß🔑 "
    postgres.create_role(postgres_server, database.user, password)
    function.use({**database.secret, "password": password})

    assert function.invoke().result["revision"] == backend.head


def test_a_wrong_password_is_an_authentication_failure(function: Deployed, database: Database) -> None:
    function.use({**database.secret, "password": "not it"})

    answer = function.invoke()

    assert (answer.function_error, answer.error_type) == ("Unhandled", "AuthenticationFailed")
    assert repr(database.user) in answer.message


def test_the_error_of_a_missing_secret_contains_its_name(function: Deployed) -> None:
    function.configure(DB_SECRET_ID="e2e/no-such-secret")

    answer = function.invoke()

    assert (answer.function_error, answer.error_type) == ("Unhandled", "SecretUnavailable")
    assert "e2e/no-such-secret" in answer.message


# --- the database's own troubles ---


@pytest.mark.stress
def test_a_stopped_database_is_unavailable_and_the_same_function_works_when_it_is_back(
    function: Deployed, database: Database, shared_run: Path, backend: Backend
) -> None:
    server = testing.start_postgres(ROOT, shared_run, "e2e")
    postgres.create_role(server, database.user, database.password)
    postgres.create_database(server, database.name, database.user)
    own = server.database(database.name, database.user, database.password)
    function.use(own.secret, CONNECT_TIMEOUT_S="3", DB_SSLROOTCERT=str(own.ca))
    postgres.stop(server.directory)

    stopped = function.invoke()

    assert (stopped.function_error, stopped.error_type) == ("Unhandled", "DatabaseUnavailable")
    assert f"{own.host}:{own.port}" in stopped.message
    assert testing.start_postgres(ROOT, shared_run, "e2e") == server
    assert function.invoke().result["revision"] == backend.head


def test_a_database_ahead_of_the_package_is_left_alone(
    function: Deployed, database: Database, backend: Backend
) -> None:
    function.invoke({"revision": backend.revisions[1]})
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = 'of_a_newer_release'")
    before = tables_of(database)

    answer = function.invoke()

    assert (answer.function_error, answer.error_type) == ("Unhandled", "UnknownRevision")
    assert "of_a_newer_release" in answer.message
    assert (version_of(database), tables_of(database)) == (["of_a_newer_release"], before)


# --- the log ---


def test_the_log_of_a_run_arrives_in_cloudwatch(function: Deployed) -> None:
    request_id = function.invoke().result["request_id"]

    events = _events(function, request_id, until="migration.finished")

    assert events[0] == "migration.started"
    assert events.count("revision.applied") == events.count("revision.started") > 0


def _events(function: Deployed, request_id: str, until: str) -> list[str]:
    """Return the events that a request has logged, oldest first, as soon as ``until`` is among them."""

    def logged() -> list[str]:
        lines = [json.loads(line) for line in function.log() if line.startswith("{")]
        events = [line["event"] for line in lines if line.get("function_request_id") == request_id and "event" in line]
        return events if until in events else []

    return eventually(logged, of=until)


# --- the next release, at the end because it is deployed over the first ---


@pytest.mark.stress
def test_a_failing_revision_leaves_the_database_at_the_last_good_one(
    next_release: Deployed, database: Database
) -> None:
    answer = next_release.aws_lambda_invoke()

    assert (answer.function_error, answer.error_type) == ("Unhandled", "MigrationFailed")
    assert version_of(database) == ["e2e00000good"]
    assert {"next_release", "half_done"} & tables_of(database) == {"next_release"}


@pytest.mark.stress
def test_the_aws_command_exits_0_although_the_migration_failed(next_release: Deployed) -> None:
    """`aws lambda invoke` exits with 0 although the function failed. The documents warn of it."""
    next_release.configure(DB_SECRET_ID="e2e/no-such-secret")

    answer = next_release.aws_lambda_invoke()

    assert (answer.exit_code, answer.function_error) == (0, "Unhandled")


@pytest.mark.stress
def test_the_message_of_a_failed_revision_is_one_line_with_the_servers_words(next_release: Deployed) -> None:
    message = next_release.invoke().message

    assert message.splitlines() == [message]
    assert all(word in message for word in ("e2e000000bad", "P0001", "first line", "second line", "e2e00000good"))
