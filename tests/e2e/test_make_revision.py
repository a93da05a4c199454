"""docs/development.md without Docker: its commands run in a copy of the checkout with its own PostgreSQL."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from demo import backend as demo_backend
from demo import develop
from localcloud import cloud
from tests.support.bystander import query
from tests.support.checkout import ROOT, copy_checkout, with_tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localcloud.postgres import Database

# In this order, in one worker: they tell one story.
pytestmark = pytest.mark.xdist_group("make-revision")

PAGE = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(shared_run: Path) -> Iterator[Path]:
    """A checkout whose PostgreSQL ends with the test run in any case."""
    folder = copy_checkout(shared_run / "make-revision")
    (shared_run / "postgres" / "make-revision").mkdir(parents=True)
    (folder / ".local" / "postgres").symlink_to(shared_run / "postgres" / "make-revision")
    yield folder
    subprocess.run([sys.executable, "-m", "localcloud", "clean"], cwd=folder, check=True)


def run(checkout: Path, command: str) -> subprocess.CompletedProcess[str]:
    # What is installed is linked into the copy: its Makefile must not take it for its own to set up.
    environment = {**with_tools(dict(os.environ)), "MAKEFLAGS": "-- TOOLS="}
    return subprocess.run(
        ["bash", "-c", command], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def revisions(checkout: Path) -> list[str]:
    return sorted(file.name for file in (checkout / "back" / "alembic" / "versions").glob("*.py"))


def shown() -> list[str]:
    """The page's commands that this test runs. The review has its own tests."""
    [block] = re.findall(r"^## Without Docker\n\n```sh\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    return [line for line in block.splitlines() if line.startswith("make ") and line != "make review"]


@pytest.mark.stress
def test_before_the_first_upgrade_nothing_is_compared_and_no_file_is_left(checkout: Path) -> None:
    before = revisions(checkout)

    done = run(checkout, 'make revision m="Add teams table"')

    assert done.returncode != 0
    assert "not at the code's head" in done.stdout
    assert revisions(checkout) == before


@pytest.mark.stress
def test_a_revision_without_description_is_refused(checkout: Path) -> None:
    done = run(checkout, "make revision")

    assert done.returncode != 0
    assert "FAILED: there is no description" in done.stdout


@pytest.mark.stress
def test_the_commands_of_the_page_take_a_changed_model_to_the_database(checkout: Path) -> None:
    before = revisions(checkout)
    upgrade, revision, *rest = shown()
    assert run(checkout, upgrade).returncode == 0
    models = checkout / "back" / "app" / "models" / "users.py"
    models.write_text(models.read_text() + "\n    nickname: Mapped[str | None]\n")

    done = run(checkout, revision)

    assert done.returncode == 0, done.stdout + done.stderr
    [new] = set(revisions(checkout)) - set(before)
    for command in rest:
        done = run(checkout, command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == f"{new.split('-')[1][:12]} (head)"
    with closing(cloud.development(checkout).connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_database(), nickname FROM users")
        assert cursor.fetchall() == []


@pytest.mark.stress
def test_a_description_may_contain_shell_syntax(checkout: Path) -> None:
    assert run(checkout, "make upgrade").returncode == 0

    done = run(checkout, """make revision m='Add "$$HOME" and `id`; to users'""")

    assert done.returncode != 0
    assert "nothing to write" in done.stdout


TEMPLATE_MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
class Base(DeclarativeBase): ...
class Team(Base):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
"""


def another_backend(tmp_path: Path) -> Path:
    """A backend with Alembic's template and a model."""
    backend = tmp_path / "my-api"
    subprocess.run([sys.executable, "-m", "alembic", "init", str(backend / "alembic")], cwd=tmp_path, check=True)
    (tmp_path / "alembic.ini").write_text("[alembic]\n")  # of another project, above it
    ini = "[alembic]\nscript_location = %(here)s/alembic\nprepend_sys_path = .\nsqlalchemy.url = driver://u:p@h/d\n"
    (backend / "alembic.ini").write_text(
        ini + "[loggers]\nkeys=root\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nhandlers=\n"
    )
    (backend / "models.py").write_text(TEMPLATE_MODELS)
    (backend / "requirements.txt").write_text("alembic\nsqlalchemy\n")
    env_py = backend / "alembic" / "env.py"
    metadata = "import models\ntarget_metadata = models.Base.metadata"
    env_py.write_text(env_py.read_text().replace("target_metadata = None", metadata))
    return backend


def test_another_backend_is_developed_with_the_libraries_of_its_lock(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = another_backend(tmp_path)
    monkeypatch.setattr(demo_backend, "ROOT", tmp_path)  # where it builds the package
    monkeypatch.setattr("demo.develop.cloud.development", lambda *_: database)

    assert develop.main(["--backend", str(backend), "revision", "Add teams table"]) == 0
    assert develop.main(["--backend", str(backend), "upgrade"]) == 0

    [file] = (backend / "alembic" / "versions").glob("*_add_teams_table.py")
    assert query(database, "SELECT version_num FROM alembic_version") == [(file.name.partition("_")[0],)]
    assert query(database, "SELECT id FROM team") == []


@pytest.mark.stress
def test_another_backend_has_a_database_and_libraries_of_its_own(checkout: Path, tmp_path: Path) -> None:
    backend = another_backend(tmp_path)
    for target in (f'revision BACKEND={backend} m="Add teams table"', f"upgrade BACKEND={backend}"):
        done = run(checkout, f"make {target}")
        assert done.returncode == 0, done.stderr

    [file] = (backend / "alembic" / "versions").glob("*_add_teams_table.py")
    done = run(checkout, f"make current BACKEND={backend}")
    assert file.name.partition("_")[0] in done.stdout
