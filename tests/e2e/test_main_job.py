"""`make migrate` and `make rollout`, in a copy of the checkout, so that the developer's local cloud stays unchanged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, closing
from signal import SIGINT
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import pytest

from localcloud import cloud
from tests.support.checkout import copy_checkout, with_tools
from tests.support.processes import interruptible, killing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.e2e.conftest import Backend

# In this order, in one worker: they tell one story.
pytestmark = pytest.mark.xdist_group("main-job")


@pytest.fixture(scope="module")
def checkout(shared_run: Path) -> Iterator[Path]:
    """A checkout whose local cloud ends with the test run in any case."""
    folder = copy_checkout(shared_run / "main-job")
    for servers, link in (("postgres", "postgres"), ("emulators", "emulator")):
        (shared_run / servers / "main-job").mkdir(parents=True)
        (folder / ".local" / link).symlink_to(shared_run / servers / "main-job")
    yield folder
    subprocess.run([sys.executable, "-m", "localcloud", "clean"], cwd=folder, check=True)


def python(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = with_tools({**os.environ, "COLUMNS": "120"})
    command = (sys.executable, "-m", *command)
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def migrate(checkout: Path) -> subprocess.CompletedProcess[str]:
    return python(checkout, "demo.migrate")


def rollout(checkout: Path, *arguments: str) -> tuple[int, Any]:
    """The exit code of the command, and its document."""
    done = python(checkout, "migrate_cli", "rollout", *arguments, "--stage", "local", "--json")
    return done.returncode, json.loads(done.stdout)


def started_rollout(checkout: Path, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start the command, with its output as text, and kill it at the end of the context."""
    command = (sys.executable, "-m", "migrate_cli", "rollout", *arguments, "--stage", "local")
    environment = with_tools(dict(os.environ))
    return killing(subprocess.Popen(command, cwd=checkout, env=environment, stdout=PIPE, stderr=PIPE, text=True))


def test_the_first_run_sets_everything_up_and_brings_the_database_to_head(checkout: Path, backend: Backend) -> None:
    done = migrate(checkout)

    assert done.returncode == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if line.rstrip().endswith(" ms")]
    assert tuple(rows) == backend.revisions
    assert f"from base (an empty database) to {backend.head}" in " ".join(done.stdout.split())


@pytest.mark.stress
def test_the_next_run_has_nothing_to_apply(checkout: Path, backend: Backend) -> None:
    assert migrate(checkout).returncode == 0

    done = migrate(checkout)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == f"Nothing to apply: template_saas is at {backend.head}.".split()


@pytest.mark.stress
def test_a_failed_migration_is_printed_to_standard_error_and_sets_the_exit_code(checkout: Path) -> None:
    database = cloud.up(checkout).database
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = '[red]newer[/]'")

    done = migrate(checkout)

    assert (done.returncode, done.stdout) == (1, "")
    assert "UnknownRevision: " in done.stderr
    assert "[red]newer[/]" in done.stderr
    assert "migrate logs --stage local" in done.stderr


@pytest.mark.stress
def test_a_rollout_migrates_thirty_tenants_and_prints_the_path_of_its_report(checkout: Path, backend: Backend) -> None:
    done = python(checkout, "demo.rollout")

    assert done.returncode == 0, done.stderr
    assert "Rolled out: 30 targets: 30 migrated" in done.stdout
    page = checkout / ".local" / "rollout.html"
    assert f"The report: {page}" in done.stdout
    assert backend.head in page.read_text(encoding="utf-8")


@pytest.mark.stress
def test_a_retry_migrates_only_the_failed_targets(checkout: Path, backend: Backend) -> None:
    server = cloud.up(checkout).server
    with closing(server.connect("tenant_07")) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM alembic_version")
        connection.commit()

    code, plan = rollout(checkout, "--plan")
    assert (code, plan["counts"]["behind"], plan["revisions"]) == (0, 1, {backend.head: 29, "base": 1})
    assert plan["estimate"]["behind"] == 1

    # Its tables are there already.
    code, report = rollout(checkout)
    assert (code, [failure["error_type"] for failure in report["failures"]]) == (1, ["MigrationFailed"])
    assert rollout(checkout, "status") == (0, report)

    with closing(server.connect("tenant_07")) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO alembic_version VALUES (%s)", (backend.head,))
        connection.commit()
    code, report = rollout(checkout, "retry")
    assert (code, report["counts"]["targets"], report["counts"]["current"]) == (0, 1, 1)


@pytest.mark.stress
def test_a_rollout_continues_without_its_command_and_a_stop_ends_targets_at_boundaries(checkout: Path) -> None:
    server = cloud.up(checkout).server
    with ExitStack() as processes, ExitStack() as held:
        # More than a server takes at once, and the first after the canaries.
        for number in range(3, 13):
            connection = held.enter_context(closing(server.connect(f"tenant_{number:02}")))
            connection.cursor().execute("BEGIN; LOCK TABLE alembic_version")
        with interruptible():
            looking = processes.enter_context(started_rollout(checkout))
        while not _canaries_are_done(rollout(checkout, "status")[1]):
            assert looking.poll() is None

        looking.send_signal(SIGINT)
        _, errors = looking.communicate()
        assert looking.returncode == 130
        assert "continues" in errors
        assert rollout(checkout, "status")[1]["status"] == "running"

        stopping = processes.enter_context(started_rollout(checkout, "stop", "--json"))
        assert stopping.stderr
        assert "starts no further target; waiting for the running ones" in stopping.stderr.readline()
        held.close()
        document, _ = stopping.communicate()

    assert stopping.returncode == 0
    report = json.loads(document)
    assert report["status"] == "stopped"
    assert report["counts"]["failed"] == 0
    assert report["counts"]["current"] + report["counts"]["left"] == 30
    assert report["counts"]["left"] > 0
    assert rollout(checkout, "status") == (0, report)


def _canaries_are_done(report: Mapping[str, Any]) -> bool:
    # Until the targets are listed, the report is that of the last rollout, or an error.
    return report.get("status") == "running" and report["counts"]["left"] <= 28
