"""``migrate`` against a function that the CDK deployed: every action, and an operator who interrupts."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from lambda_migrate.database.common import LOCK_CLASS
from lambda_migrate.database.migration_lock import lock_keys
from migrate_cli.presentation import plain
from tests.support.bystander import query
from tests.support.checkout import ROOT
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import subprocess

    from localcloud.postgres import Database
    from tests.e2e.conftest import Backend, Deployed

# As for the other tests of the one deployed function.
pytestmark = pytest.mark.xdist_group("e2e")

FUNCTION = "template-saas-api-migrate-lambda-e2e"
COMMAND = ("python", "-m", "migrate_cli")


def migrate(function: Deployed, *arguments: str) -> subprocess.CompletedProcess[str]:
    return function.run(*COMMAND, *arguments, "--stage", "e2e")


def version_of(database: Database) -> str | None:
    rows = query(database, "SELECT version_num FROM alembic_version")
    return rows[0][0] if rows else None


@pytest.mark.stress
def test_every_action_answers_a_person(function: Deployed, database: Database, backend: Backend) -> None:
    """Run the commands one after the other, as an operator does on the first day."""
    function.use(database.secret, ALLOW_DOWNGRADE="true")
    first, second = backend.revisions[:2]

    doctor = migrate(function, "doctor")
    assert (doctor.returncode, "Healthy" in doctor.stdout) == (0, True), doctor.stdout + doctor.stderr

    plan = migrate(function, "plan", first)
    assert f"-- {first} (" in plan.stdout
    assert "CREATE TABLE" in plan.stdout

    upgrade = migrate(function, "upgrade", "+2")
    rows = [line.split()[0] for line in upgrade.stdout.splitlines() if line.rstrip().endswith(" ms")]
    assert (upgrade.returncode, rows) == (0, [first, second]), upgrade.stderr
    assert version_of(database) == second

    status = migrate(function, "status")
    assert f"{len(backend.revisions) - 2} revisions pending" in status.stdout

    history = migrate(function, "history")
    listed = [line.partition(" ")[0] for line in history.stdout.splitlines()]
    assert [revision for revision in listed if revision in backend.revisions] == list(reversed(backend.revisions))

    check = migrate(function, "check", "--json")
    assert (check.returncode, json.loads(check.stdout)["error"]["type"]) == (1, "DriftDetected")

    refused = migrate(function, "downgrade", "-1", "--json")
    assert (refused.returncode, json.loads(refused.stdout)["error"]["type"]) == (1, "DowngradeRefused")

    downgrade = migrate(function, "downgrade", "-1", "--confirm", second)
    assert (downgrade.returncode, "Reverted 1 revision" in downgrade.stdout) == (0, True), downgrade.stderr
    assert version_of(database) == first

    stamp = migrate(function, "stamp", second, "--confirm", first)
    assert (stamp.returncode, version_of(database)) == (0, second), stamp.stderr


def test_a_failed_revision_is_1_with_the_functions_words(function: Deployed, database: Database) -> None:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE organizations (in_the_way integer)")
        connection.commit()

    done = migrate(function, "upgrade", "--json")

    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["type"]) == (1, "MigrationFailed")
    assert "organizations" in error["message"]
    assert plain(error["message"]) in done.stderr
    assert error["sqlstate"] == "42P07"
    assert "op.create_table" in (ROOT / "back" / error["file"]).read_text().splitlines()[error["line"] - 1]
    assert f"{error['file']}:{error['line']}" in done.stderr


@pytest.mark.stress
def test_a_database_that_cannot_be_reached_is_4(function: Deployed, database: Database) -> None:
    function.use({**database.secret, "port": 1}, CONNECT_TIMEOUT_S="1")

    assert migrate(function, "upgrade").returncode == 4


def test_ctrl_c_leaves_the_function_at_work_and_it_finishes(
    function: Deployed, database: Database, backend: Backend
) -> None:
    holder = database.connect()
    with closing(holder), holder.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s, %s)", (LOCK_CLASS, lock_keys(None, None)[0]))
        holder.commit()
        with function.start(*COMMAND, "upgrade", "--stage", "e2e") as process:
            eventually(lambda: waits_for_the_lock(database))

            process.send_signal(signal.SIGINT)
            _, errors = process.communicate()

        assert process.returncode == 130, errors
        assert "continues the upgrade" in errors
    eventually(lambda: status_of(function)["revision"] == backend.head, every_s=0.5)


@pytest.mark.stress
def test_a_run_is_followed_while_it_works(function: Deployed, database: Database, backend: Backend) -> None:
    function.use(database.secret, MIGRATION_LOCK_TIMEOUT_S="20")
    with ExitStack() as processes, closing(database.connect()) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s, %s)", (LOCK_CLASS, lock_keys(None, None)[0]))
        holder.commit()
        process = processes.enter_context(function.start(*COMMAND, "upgrade", "--stage", "e2e"))
        assert process.stderr
        # The command prints both lines while the function still waits for the lock.
        first = [process.stderr.readline() for _ in range(2)]
        holder.close()
        _, rest = process.communicate()

    assert f"upgrade on {FUNCTION}" in first[0]
    assert "lock" in first[1]
    assert process.returncode == 0, rest
    assert status_of(function)["revision"] == backend.head


def status_of(function: Deployed) -> dict[str, object]:
    answer: dict[str, object] = function.invoke({"action": "status"}).result
    return answer


def waits_for_the_lock(database: Database) -> bool:
    """Return whether the function has opened a session."""
    return bool(
        query(
            database,
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%/%-%'",
        )
    )
