"""A statement that takes longer than a function may run, with shortened limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from localcloud.clients import client
from tests.e2e.conftest import AFTER, BAD, FUNCTION, GOOD, LONG, STAGE
from tests.e2e.test_state_machine import execute
from tests.support.bystander import execute as run_sql
from tests.support.bystander import query
from tests.support.ledger import is_running, lock_holders
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localcloud.emulator import Emulator
    from localcloud.postgres import Database
    from tests.e2e.conftest import Backend, Deployed

pytestmark = pytest.mark.xdist_group("e2e")

PROJECT = f"template-saas-api-migrate-{STAGE}"
# A function has four seconds for what takes six; and one that fails only in the end.
TIMEOUT_S, RESERVE_MS = 8, "4000"


@pytest.fixture
def long_release(deployed: Deployed, database: Database, backend: Backend, emulator: Emulator) -> Iterator[Deployed]:
    """The deployed stage before a revision that takes longer than its functions may run."""
    deployed.release(GOOD, BAD, LONG, AFTER, on_top_of=backend.head)
    run_sql(database, "CREATE TABLE mended ()")
    secret = deployed.use(database.secret, DEADLINE_RESERVE_MS=RESERVE_MS)
    functions, builds = client(emulator, "lambda"), client(emulator, "codebuild")
    before = functions.get_function_configuration(FunctionName=FUNCTION)["Timeout"]
    [project] = builds.batch_get_projects(names=[PROJECT])["projects"]
    environment = project["environment"]
    for variable in environment["environmentVariables"]:
        if variable["name"] == "DB_SECRET_ID":
            variable["value"] = secret
    builds.update_project(name=PROJECT, environment=environment)
    assert deployed.invoke({"revision": BAD.id}).result["revision"] == BAD.id
    functions.update_function_configuration(FunctionName=FUNCTION, Timeout=TIMEOUT_S)
    yield deployed
    functions.update_function_configuration(FunctionName=FUNCTION, Timeout=before)


def nap(database: Database, seconds: int, *, fails: bool = False) -> None:
    run_sql(database, f"CREATE TABLE naps AS SELECT {seconds} AS seconds, {fails} AS fails")


def events(deployed: Deployed, since: int, *names: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in deployed.log()[since:] if line.startswith("{")]
    return [line for line in lines if line.get("event") in names]


@pytest.mark.stress
def test_the_state_machine_starts_a_long_run_after_functions_without_progress_and_continues_with_them(
    long_release: Deployed, database: Database, emulator: Emulator
) -> None:
    nap(database, 6)
    before = len(long_release.log())

    execution = execute(emulator)

    assert execution["status"] == "SUCCEEDED", execution.get("cause")
    assert json.loads(execution["output"])["revision"] == AFTER.id
    assert query(database, "SELECT to_regclass('after_long') IS NOT NULL") == [(True,)]
    incomplete = events(long_release, before, "migration.failed")
    assert [line["error_type"] for line in incomplete] == ["MigrationIncomplete"] * 2
    # The log of the long run is where the function's is.
    applied = events(long_release, before, "revision.applied")
    assert [line["revision"] for line in applied] == [LONG.id, AFTER.id]
    assert applied[0]["duration_ms"] > 1000 * (TIMEOUT_S - 4)
    [build] = client(emulator, "codebuild").list_builds_for_project(projectName=PROJECT)["ids"][:1]
    assert applied[0]["function_request_id"] == build.rpartition(":")[2]


@pytest.mark.stress
@pytest.mark.usefixtures("long_release")
def test_a_long_run_that_fails_ends_the_execution_with_its_error(database: Database, emulator: Emulator) -> None:
    nap(database, 6, fails=True)

    execution = execute(emulator)

    assert (execution["status"], execution["error"]) == ("FAILED", "MigrationFailed")
    assert "after a long time" in json.loads(execution["cause"])["errorMessage"]


@pytest.mark.stress
def test_migrate_upgrade_long_runs_there_at_once(long_release: Deployed, database: Database) -> None:
    nap(database, 6)

    done = long_release.run("python", "-m", "migrate_cli", "upgrade", "--long", "--stage", STAGE, "--json")

    assert done.returncode == 0, done.stderr
    assert [each["revision"] for each in json.loads(done.stdout)["applied"]] == [LONG.id, AFTER.id]
    assert f"committed {LONG.id}" in done.stderr


@pytest.mark.stress
def test_a_long_run_that_is_stopped_leaves_nothing_running_and_nothing_locked(
    long_release: Deployed, database: Database, emulator: Emulator
) -> None:
    nap(database, 60)
    builds = client(emulator, "codebuild")
    with long_release.start("python", "-m", "migrate_cli", "upgrade", "--long", "--stage", STAGE) as process:
        eventually(lambda: is_running(database, "pg_sleep"), within_s=60)
        assert lock_holders(database)
        [build] = builds.list_builds_for_project(projectName=PROJECT)["ids"][:1]

        builds.stop_build(id=build)

        eventually(lambda: not lock_holders(database) and not is_running(database, "pg_sleep"), within_s=10)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "LongRunFailed" in shown
    assert "STOPPED" in shown
    status = long_release.invoke({"action": "status"}).result
    assert (status["lock"], [each["revision"] for each in status["pending"]]) == (None, [LONG.id, AFTER.id])
