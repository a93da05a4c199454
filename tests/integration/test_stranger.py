"""A stranger's project, made with FastAPI and SQLModel and locked by its own tool, is packaged and migrated."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import pytest
from uv import find_uv_bin

from tests.support.bystander import query
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from localcloud.postgres import Database
    from tests.support.functions import Runner

DEPENDENCIES = ("fastapi", "sqlmodel", "alembic", "psycopg2-binary", "pydantic-settings")

MODELS = """
from sqlmodel import Field, SQLModel


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True)
"""
MAIN = """
from fastapi import FastAPI
from app.models import Hero

app = FastAPI()


@app.get("/heroes")
def heroes() -> list[Hero]:
    return []
"""
PROJECT = """
[project]
name = "heroes"
version = "0.1.0"
requires-python = ">=3.10,<4"
dependencies = [{dependencies}]
"""
POETRY = """
[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"
[tool.poetry]
package-mode = false
"""


def run(folder: Path, *command: str, **variables: str) -> str:
    names = ("PATH", "HOME", "UV_CACHE_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "LANG")
    prefixes = ("UV_", "PIP_")
    machine = {name: value for name, value in os.environ.items() if name in names or name.startswith(prefixes)}
    done = subprocess.run(
        command, cwd=folder, env={**machine, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def write_project(folder: Path) -> None:
    """The files that the stranger writes, without those of the tools."""
    (folder / "app").mkdir(parents=True)
    for name, text in (("__init__", ""), ("models", MODELS), ("main", MAIN)):
        (folder / "app" / f"{name}.py").write_text(text.lstrip())
    quoted = ", ".join(f'"{each}"' for each in DEPENDENCIES)
    (folder / "pyproject.toml").write_text(PROJECT.format(dependencies=quoted).lstrip())


def edit_tree(folder: Path) -> None:
    """Change Alembic's template as SQLModel's documentation describes."""
    env = folder / "alembic" / "env.py"
    text = env.read_text()
    address = "os.environ['DATABASE_URL'].replace('%', '%%')"
    changes = {
        "target_metadata = None": "from app import models\nfrom sqlmodel import SQLModel\n"
        "target_metadata = SQLModel.metadata",
        "config = context.config\n": "import os\nconfig = context.config\n"
        f"config.set_main_option('sqlalchemy.url', {address})\n",
    }
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    env.write_text(text)
    mako = folder / "alembic" / "script.py.mako"
    mako.write_text(mako.read_text().replace("import sqlalchemy as sa\n", "import sqlalchemy as sa\nimport sqlmodel\n"))


def poetry_source() -> str:
    """The package index that pip uses, by its simple pages: not every mirror has the other pages that Poetry reads."""
    index = os.environ.get("PIP_INDEX_URL") or str(import_module("pip._internal.models.index").PyPI.simple_url)
    return f'[[tool.poetry.source]]\nname = "pip"\nurl = "{index}/"\npriority = "primary"\n'


def lock(folder: Path, tool: str) -> None:
    """Leave the project with the lock of one tool."""
    uv = find_uv_bin()
    if tool == "uv":
        return
    (folder / "uv.lock").unlink()
    project = folder / "pyproject.toml"
    if tool == "poetry":
        project.write_text(project.read_text() + POETRY + poetry_source())
        run(
            folder,
            uv,
            "tool",
            "run",
            "--quiet",
            "poetry",
            "lock",
            "--no-interaction",
            POETRY_VIRTUALENVS_CREATE="false",
        )
    else:
        project.unlink()
        (folder / "requirements.in").write_text("\n".join(DEPENDENCIES) + "\n")
        run(folder, uv, "tool", "run", "--quiet", "--from", "pip-tools", "pip-compile", "--quiet", "--generate-hashes",
            "--strip-extras", "requirements.in")  # fmt: skip


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tool", ["uv", "poetry", "pip-tools"])
def test_a_strangers_project_is_packaged_and_migrated(
    tmp_path: Path, database: Database, runner: Runner, tool: str
) -> None:
    folder = tmp_path / "heroes"
    write_project(folder)
    uv, address = find_uv_bin(), {"DATABASE_URL": database.url, "UV_PYTHON": sys.executable}
    run(folder, uv, "run", "--quiet", "alembic", "init", "alembic", **address)
    edit_tree(folder)
    run(folder, uv, "run", "--quiet", "alembic", "revision", "--autogenerate", "-m", "Add heroes", **address)
    lock(folder, tool)

    run(ROOT, sys.executable, "-m", "infra.package", str(folder), str(tmp_path / "package"))
    function = runner.start_package(tmp_path / "package")

    assert [each["description"] for each in function.invoke().payload["applied"]] == ["Add heroes"]
    assert function.invoke().payload["applied"] == []
    assert query(database, "SELECT count(*) FROM hero") == [(0,)]
    assert function.invoke({"action": "check"}).payload["status"] == "ok"
