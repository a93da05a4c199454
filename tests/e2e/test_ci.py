"""The workflows' own scripts, run against a deployed function, with another stage's name."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.workflows import SHELL, script, surroundings_of_a_step

if TYPE_CHECKING:
    import subprocess

    from localcloud.postgres import Database
    from tests.e2e.conftest import Backend, Deployed

# As for the other tests of the one deployed function. The file's name has it run beside those that need the same
# package deployed.
pytestmark = pytest.mark.xdist_group("e2e")

DEPLOY, PRODUCTION = "deploy-backend.yml", "migrate-production.yml"
BY_BRANCH = "github.ref_name == 'main' && 'prod' || 'dev'"


class Job:
    """One job's steps in their order, with the files that GitHub gives them."""

    def __init__(self, function: Deployed, folder: Path, workflow: str, job: str, **values: str) -> None:
        self._function = function
        self._files = surroundings_of_a_step(folder)
        self._which = (workflow, job)
        self._values = {BY_BRANCH: "e2e", **{name.replace("__", "."): value for name, value in values.items()}}

    def step(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a step's script."""
        found = script(*self._which, name)
        variables = {**self._files, **found.environment(self._values), "STAGE": "e2e"}
        # The path is the one with the project's commands.
        settings = [f"{name}={value}" for name, value in variables.items() if name != "PATH"]
        return self._function.run("env", *settings, *SHELL, found.text)

    def wrote(self, file: str) -> str:
        """Return the content that the steps wrote into one of those files."""
        return Path(self._files[file]).read_text(encoding="utf-8")


def version_of(database: Database) -> list[tuple[str]]:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version_num FROM alembic_version")
        return cursor.fetchall()


def test_a_deployment_migrates_its_stage(
    function: Deployed, database: Database, backend: Backend, tmp_path: Path
) -> None:
    job = Job(function, tmp_path, DEPLOY, "migrate")

    plan = job.step("Plan")
    assert (plan.returncode, "CREATE TABLE" in plan.stdout) == (0, True), plan.stderr

    upgrade = job.step("Upgrade")
    assert upgrade.returncode == 0, upgrade.stderr
    assert version_of(database) == [(backend.head,)]


@pytest.mark.stress
def test_a_revision_that_fails_fails_the_deployment(function: Deployed, database: Database, tmp_path: Path) -> None:
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE organizations (in_the_way integer)")
        connection.commit()

    upgrade = Job(function, tmp_path, DEPLOY, "migrate").step("Upgrade")

    assert upgrade.returncode == 1
    assert "::error title=" in upgrade.stderr


def test_production_is_upgraded_to_the_approved_plan(
    function: Deployed, database: Database, backend: Backend, tmp_path: Path
) -> None:
    planning = Job(function, tmp_path, PRODUCTION, "plan")
    plan = planning.step("Plan")
    assert plan.returncode == 0, plan.stderr
    assert planning.wrote("GITHUB_OUTPUT") == f"revision={backend.head}\n"
    assert "CREATE TABLE" in planning.wrote("GITHUB_STEP_SUMMARY")

    # As if only this one had been there when the plan was made.
    approved = {"needs__plan__outputs__revision": backend.revisions[1], "github__triggering_actor": "mona"}
    upgrading = Job(function, tmp_path, PRODUCTION, "upgrade", **approved, github__sha="c0ffee")
    for step in ("Record the requester", "Upgrade", "Where the database is now"):
        done = upgrading.step(step)
        assert done.returncode == 0, done.stderr

    assert version_of(database) == [(backend.revisions[1],)]
    summary = upgrading.wrote("GITHUB_STEP_SUMMARY")
    assert "| requested by | mona |" in summary
    assert "| from | base |" in summary
    assert f"| to | {backend.revisions[1]} |" in summary
    assert "| request | " in summary
