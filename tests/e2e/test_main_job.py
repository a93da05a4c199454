"""What `make migrate` runs, from nothing, in a copy of the checkout: the developer's own local cloud stays as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from localcloud import cloud
from tests.support.checkout import copy_checkout, with_tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Backend

# In this order, in one worker: they tell one story.
pytestmark = pytest.mark.xdist_group("main-job")


@pytest.fixture(scope="module")
def checkout(shared_run: Path) -> Iterator[Path]:
    """A checkout whose local cloud is among the servers of the test run, which end with it whatever happens."""
    folder = copy_checkout(shared_run / "main-job")
    for servers, link in (("postgres", "postgres"), ("emulators", "emulator")):
        (shared_run / servers / "main-job").mkdir(parents=True)
        (folder / ".local" / link).symlink_to(shared_run / servers / "main-job")
    yield folder
    subprocess.run([sys.executable, "-m", "localcloud", "clean"], cwd=folder, check=True)


def migrate(checkout: Path) -> subprocess.CompletedProcess[str]:
    environment = with_tools({**os.environ, "COLUMNS": "120"})
    command = [sys.executable, "-m", "localcloud.migrate"]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_the_first_run_sets_everything_up_and_brings_the_database_to_head(checkout: Path, backend: Backend) -> None:
    done = migrate(checkout)

    assert done.returncode == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if line.rstrip().endswith(" ms")]
    assert tuple(rows) == backend.revisions
    assert f"from base (an empty database) to {backend.head}" in " ".join(done.stdout.split())


def test_the_next_run_has_nothing_to_apply(checkout: Path, backend: Backend) -> None:
    done = migrate(checkout)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == f"Nothing to apply: template_saas is at {backend.head}.".split()


def test_a_failed_migration_is_told_on_standard_error_and_by_the_exit_code(checkout: Path) -> None:
    database = cloud.up(checkout).database
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = '[red]newer[/]'")

    done = migrate(checkout)

    assert (done.returncode, done.stdout) == (1, "")
    assert "UnknownRevision: " in done.stderr
    assert "[red]newer[/]" in done.stderr
