"""The locks of several tools, as lines of a requirements file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from infra.package.errors import PackageError
from infra.package.locks import read_lock
from infra.package.requirements import read_requirements
from tests.support.backends import write

if TYPE_CHECKING:
    from pathlib import Path

HASH = "sha256:" + "0" * 64
FILES = f'files = [{{file = "x.whl", hash = "{HASH}"}}]\n'


def poetry(name: str, version: str, *lines: str) -> str:
    head = f'[[package]]\nname = "{name}"\nversion = "{version}"\noptional = false\npython-versions = "*"\n{FILES}'
    return head + "".join(f"{line}\n" for line in lines) + "\n"


def test_poetry_2(tmp_path: Path) -> None:
    lock = (
        poetry("alembic", "1.16.5", 'groups = ["main"]')
        + poetry("tzdata", "2025.2", 'groups = ["main", "dev"]', "markers = { main = 'sys_platform == \"win32\"' }")
        + poetry("greenlet", "3.2.4", 'groups = ["main"]', "markers = 'platform_machine == \"x86_64\"'")
        + poetry("pytest", "8.0.0", 'groups = ["dev"]')
        + poetry("extra", "1.0", 'groups = ["main"]').replace("optional = false", "optional = true")
    )
    write(tmp_path, **{"poetry.lock": lock})
    assert read_lock(tmp_path / "poetry.lock") == [
        f"alembic==1.16.5 --hash={HASH}",
        f'tzdata==2025.2 ; sys_platform == "win32" --hash={HASH}',
        f'greenlet==3.2.4 ; platform_machine == "x86_64" --hash={HASH}',
    ]


POETRY_1 = """
[tool.poetry.dependencies]
python = "^3.11"
alembic = "^1.14"
psycopg = {extras = ["binary"], version = "^3.2"}
sentry-sdk = {version = "*", optional = true}
[tool.poetry.group.dev.dependencies]
pytest = "*"
"""


def test_poetry_1_follows_the_projects_dependencies(tmp_path: Path) -> None:
    lock = (
        poetry("alembic", "1.14.1", "[package.dependencies]", 'SQLAlchemy = ">=1.3"', 'Mako = "*"')
        + poetry("mako", "1.3.8", "[package.dependencies]", 'MarkupSafe = ">=0.9.2"')
        + poetry("markupsafe", "3.0.2")
        + poetry(
            "psycopg", "3.2.3", "[package.dependencies]",
            'psycopg-binary = {version = "3.2.3", optional = true, markers = "extra == \\"binary\\""}',
            'psycopg-c = {version = "3.2.3", optional = true}',
            "[package.extras]", 'binary = ["psycopg-binary (==3.2.3)"]', 'c = ["psycopg-c (==3.2.3)"]',
        )
        + poetry("psycopg-binary", "3.2.3")
        + poetry("psycopg-c", "3.2.3")
        + poetry("pytest", "8.0.0")
        + poetry("sentry-sdk", "2.0.0")
        + poetry("sqlalchemy", "2.0.36")
    )  # fmt: skip
    write(tmp_path, **{"poetry.lock": lock, "pyproject.toml": POETRY_1})
    names = [line.partition("==")[0] for line in read_lock(tmp_path / "poetry.lock")]
    assert names == ["alembic", "mako", "markupsafe", "psycopg", "psycopg-binary", "sqlalchemy"]


def test_pdm(tmp_path: Path) -> None:
    def package(name: str, *lines: str) -> str:
        return f'[[package]]\nname = "{name}"\nversion = "1.0"\n{FILES}' + "".join(f"{line}\n" for line in lines)

    lock = (
        package("alembic", 'groups = ["default"]')
        + package("psycopg", 'groups = ["default"]')
        + package("psycopg", 'groups = ["default"]', 'extras = ["binary"]')
        + package("tomli", 'groups = ["default"]', "marker = 'python_version < \"3.11\"'")
        + package("pytest", 'groups = ["test"]')
    )
    write(tmp_path, **{"pdm.lock": lock})
    assert read_lock(tmp_path / "pdm.lock") == [
        f"alembic==1.0 --hash={HASH}",
        f"psycopg==1.0 --hash={HASH}",
        f'tomli==1.0 ; python_version < "3.11" --hash={HASH}',
    ]


def test_pipenv(tmp_path: Path) -> None:
    lock = {
        "default": {
            "alembic": {"version": "==1.16.5", "hashes": [HASH], "markers": "python_version >= '3.9'"},
            "mine": {"path": "./libs/mine", "editable": True},
        },
        "develop": {"pytest": {"version": "==8.0.0", "hashes": [HASH]}},
    }
    write(tmp_path, **{"Pipfile.lock": json.dumps(lock)})
    assert read_lock(tmp_path / "Pipfile.lock") == [
        f"alembic==1.16.5 ; python_version >= '3.9' --hash={HASH}",
        "././libs/mine",
    ]


def test_pylock(tmp_path: Path) -> None:
    digest = "0" * 64
    lock = (
        'lock-version = "1.0"\n[[packages]]\nname = "alembic"\nversion = "1.16.5"\n'
        f'wheels = [{{url = "https://x/a.whl", hashes = {{sha256 = "{digest}"}}}}]\n'
        '[[packages]]\nname = "mine"\ndirectory = {path = "libs/mine"}\n'
        '[[packages]]\nname = "tomli"\nversion = "2.0"\nmarker = "python_version < \'3.11\'"\n'
        f'sdist = {{url = "https://x/t.tar.gz", hashes = {{sha256 = "{digest}"}}}}\n'
    )
    write(tmp_path, **{"pylock.toml": lock})
    assert read_lock(tmp_path / "pylock.toml") == [
        f"alembic==1.16.5 --hash={HASH}",
        "./libs/mine",
        f"tomli==2.0 ; python_version < '3.11' --hash={HASH}",
    ]


@pytest.mark.parametrize("name", ["poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml"])
def test_a_lock_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, **{name: "[[package]]\nx = 1\n[[packages]]\nx = 1\n"})
    with pytest.raises(PackageError, match=rf"^{name} cannot be read"):
        read_lock(tmp_path / name)


def test_no_advice_that_writes_an_empty_lock(tmp_path: Path) -> None:
    write(tmp_path, **{"pyproject.toml": POETRY_1})
    with pytest.raises(PackageError, match=r"write one with: poetry lock$"):
        read_requirements(tmp_path)


def test_an_empty_lock_of_uv_is_refused(tmp_path: Path) -> None:
    empty = 'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n'
    write(tmp_path, **{"pyproject.toml": POETRY_1, "uv.lock": empty})
    with pytest.raises(PackageError, match=r"uv\.lock"):
        read_requirements(tmp_path)
