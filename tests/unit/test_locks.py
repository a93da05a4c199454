"""The locks of several tools, as lines of a requirements file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from infra.package.compatibility import allows, allows_from
from infra.package.errors import PackageError
from infra.package.indexes import index_of
from infra.package.lock_discovery import find as find_lock
from infra.package.lock_discovery import python_of
from infra.package.lock_readers import read_lock
from infra.package.package_platform import Platform
from infra.package.requirements import Requirements, read_requirements
from infra.package.resolving import Pin, backend_pins
from infra.package.resolving import _about_a_missing as about_a_missing
from infra.package.uv_tool import Index
from tests.support.backends import write

if TYPE_CHECKING:
    from pathlib import Path

HASH = "sha256:" + "0" * 64
DEFAULT_INDEX = "https://pypi.python.org/simple"
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


def test_poetry_1_keeps_the_markers_of_dependencies(tmp_path: Path) -> None:
    lock = (
        poetry("alembic", "1.14.1", "[package.dependencies]", 'mako = "*"',
               'zoneinfo = {version = "*", markers = "python_version < \\"3.9\\""}',
               'typing = {version = "*", markers = "python_version < \\"3.9\\""}')
        + poetry("mako", "1.3.8", "[package.dependencies]", 'typing = "*"',
                 'zoneinfo = {version = "*", markers = "sys_platform == \\"win32\\""}')
        + poetry("typing", "1.0") + poetry("zoneinfo", "1.0")
    )  # fmt: skip
    write(tmp_path, **{"poetry.lock": lock, "pyproject.toml": POETRY_1})
    lines = read_lock(tmp_path / "poetry.lock")
    assert [line.partition(" --hash")[0] for line in lines[2:]] == [
        "typing==1.0",
        'zoneinfo==1.0 ; (python_version < "3.9") or (sys_platform == "win32")',
    ]


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


def test_the_dependencies_of_poetry_without_a_lock_are_resolved_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path, **{"pyproject.toml": POETRY_1 + '[tool.poetry.extras]\nwatched = ["sentry-sdk"]\n'})
    read = read_requirements(tmp_path, extras=("watched",))
    assert read.lines == ("alembic<2,>=1.14", "psycopg[binary]<4,>=3.2", "sentry-sdk")
    assert read.python == ">=3.11,<4"
    [warning] = read.warnings
    assert warning.endswith("write a lock with: poetry lock")
    assert "sentry-sdk" not in read_requirements(tmp_path).lines


@pytest.mark.parametrize(
    "constraint, specifier",
    [
        ('"^0.115.6"', ">=0.115.6,<0.116"),
        ('"^0.0.3"', ">=0.0.3,<0.0.4"),
        ('"^0.0"', ">=0.0,<0.1"),
        ('"^0"', ">=0,<1"),
        ('"^2.0.0b1"', ">=2.0.0b1,<3"),
        ('"~1.2.3"', ">=1.2.3,<1.3"),
        ('"~1"', ">=1,<2"),
        ('">=1.2 <2"', ">=1.2,<2"),
        ('"1.2.*"', "==1.2.*"),
        ('"1.2"', "==1.2"),
        ('"*"', ""),
        ('{version = "~=1.2", markers = "python_version > \'3\'"}', "~=1.2"),
    ],
)
def test_a_constraint_of_poetry_has_the_meaning_that_poetry_gives_it(
    tmp_path: Path, constraint: str, specifier: str
) -> None:
    write(tmp_path, **{"pyproject.toml": f"[tool.poetry.dependencies]\nalembic = {constraint}\n"})
    [line] = read_requirements(tmp_path).lines
    assert Requirement(line).specifier == SpecifierSet(specifier)


@pytest.mark.parametrize(
    "table",
    [
        '[tool.poetry.dependencies]\nmodels = {path = "../models"}\n',
        '[tool.poetry.dependencies]\nmodels = {version = "^1", source = "ours"}\n',
        '[tool.poetry.dependencies]\nmodels = "<1 || >=2"\n',
        "[tool.poetry.dependencies]\nmodels = 1\n",
        '[[tool.poetry.source]]\nname = "ours"\n',
    ],
)
def test_no_advice_that_writes_an_empty_lock(tmp_path: Path, table: str) -> None:
    write(tmp_path, **{"pyproject.toml": table if "source]]" not in table else POETRY_1 + table})
    with pytest.raises(PackageError, match=r"write one with: poetry lock$"):
        read_requirements(tmp_path)


def test_an_empty_lock_of_uv_is_refused(tmp_path: Path) -> None:
    empty = 'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n'
    write(tmp_path, **{"pyproject.toml": POETRY_1, "uv.lock": empty})
    with pytest.raises(PackageError, match=r"uv\.lock"):
        read_requirements(tmp_path)


@pytest.mark.parametrize(
    "name, text, runtime",
    [
        ("uv.lock", 'version = 1\nrequires-python = "==3.12.*"\n', "3.12"),
        ("uv.lock", 'version = 1\nrequires-python = ">=3.11, <3.13"\n', "3.12"),
        ("poetry.lock", '[metadata]\npython-versions = "~3.12"\n', "3.12"),
        ("poetry.lock", '[metadata]\npython-versions = ">=3.8,<3.12 || 3.12.*"\n', "3.12"),
        ("poetry.lock", '[metadata]\npython-versions = "^3.9,<3.12.9"\n', "3.12"),
        ("pdm.lock", '[[metadata.targets]]\nrequires_python = "==3.11.*"\n', "3.11"),
        ("pylock.toml", 'lock-version = "1.0"\nrequires-python = ">=3.11,<3.13"\n', "3.12"),
    ],
)
def test_a_lock_for_another_python_names_the_runtime_that_fits(
    tmp_path: Path, name: str, text: str, runtime: str
) -> None:
    write(tmp_path, **{name: text})
    python = python_of(tmp_path / name)
    requirements = Requirements(tmp_path, tmp_path / name, (), (), locked=True, index=Index(), python=python)
    with pytest.raises(PackageError) as refused:
        backend_pins(requirements, Platform("3.13", "arm64"))
    assert f"`runtime`: python{runtime}" in str(refused.value)
    assert f"PYTHON_VERSION={runtime}" in str(refused.value)


def test_the_nearest_runtime_is_named(tmp_path: Path) -> None:
    requirements = Requirements(tmp_path, tmp_path / "uv.lock", (), (), locked=True, index=Index(), python=">=3.12")
    with pytest.raises(PackageError, match=r"3\.12 or 3\.13 or 3\.14 \(the stage's setting `runtime`: python3\.12, or"):
        backend_pins(requirements, Platform("3.11", "arm64"))


@pytest.mark.parametrize("versions", ["^3.11", ">=3.9", "~3", "*", ">=3.9,<4.0", "3.13.*", ">=3.13.2", ""])
def test_a_range_that_has_the_runtime_is_fine(tmp_path: Path, versions: str) -> None:
    write(tmp_path, **{"poetry.lock": f'[metadata]\npython-versions = "{versions}"\n'})
    assert allows(python_of(tmp_path / "poetry.lock"), 13)


def test_extras_and_groups_of_poetry_2(tmp_path: Path) -> None:
    optional = poetry("asyncpg", "1.0", 'groups = ["main"]', "markers = 'extra == \"fast\"'")
    lock = (
        poetry("alembic", "1.16.5", 'groups = ["main"]')
        + optional.replace("optional = false", "optional = true")
        + poetry("psycopg", "3.2", 'groups = ["migrations"]')
    )
    write(tmp_path, **{"poetry.lock": lock})

    def names(extras: tuple[str, ...] = (), group: str | None = None) -> list[str]:
        return [line.partition("==")[0] for line in read_lock(tmp_path / "poetry.lock", extras, group)]

    assert names() == ["alembic"]
    assert names(extras=("fast",)) == ["alembic", "asyncpg"]
    assert names(group="migrations") == ["psycopg"]
    with pytest.raises(PackageError, match="gone"):
        names(group="gone")


def test_extras_of_a_pylock(tmp_path: Path) -> None:
    entry = '[[packages]]\nname = "{0}"\nversion = "1"\nmarker = "{1}"\n'
    lock = entry.format("fast", "'fast' in extras") + entry.format("dev", "'dev' in dependency_groups")
    write(tmp_path, **{"pylock.toml": lock})
    lines = read_lock(tmp_path / "pylock.toml", extras=("fast",))
    assert [Marker(line.partition(" ; ")[2]).evaluate() for line in lines] == [True, False]


@pytest.mark.parametrize(
    "name, text",
    [
        ("poetry.lock", poetry("ours", "1", 'groups = ["main"]', '[package.source]\ntype = "git"\nurl = "{url}"')),
        ("pdm.lock", '[[package]]\nname = "ours"\nversion = "1"\ngit = "{url}"\nrevision = "abc"\n'),
        ("Pipfile.lock", '{"default": {"ours": {"git": "{url}", "ref": "abc"}}}'),
        ("pylock.toml", '[[packages]]\nname = "ours"\nvcs = {type = "git", url = "{url}", commit-id = "abc"}\n'),
    ],
)
@pytest.mark.parametrize(
    "url, address",
    [
        ("https://git.example.com/a/b.git", "git+https://git.example.com/a/b.git"),
        ("git@git.example.com:a/b.git", "git+ssh://git@git.example.com/a/b.git"),
    ],
)
def test_a_git_repository_in_each_lock(tmp_path: Path, name: str, text: str, url: str, address: str) -> None:
    text = text.replace("{url}", url).replace("[package.source]", '[package.source]\nresolved_reference = "abc"')
    write(tmp_path, **{name: text})
    assert read_lock(tmp_path / name) == [f"ours @ {address}@abc"]


def test_the_lock_of_a_workspace_is_found_past_a_stray_one(tmp_path: Path) -> None:
    member = tmp_path / "packages" / "api"
    write(tmp_path, **{"pyproject.toml": '[tool.uv.workspace]\nmembers = ["packages/*"]\n', "uv.lock": ""})
    write(tmp_path / "packages", **{"uv.lock": "stray", "pyproject.toml": "[tool.other]\n"})
    write(member, **{"pyproject.toml": '[project]\nname = "api"\n', "requirements.txt": "stray\n"})
    assert find_lock(member) == tmp_path / "uv.lock"


def test_the_lock_of_the_repository_serves_a_folder_without_one(tmp_path: Path) -> None:
    write(tmp_path, **{".git/HEAD": "", "poetry.lock": ""})
    write(tmp_path / "api" / "db", **{"alembic.ini": ""})
    assert find_lock(tmp_path / "api" / "db") == tmp_path / "poetry.lock"


def test_the_indexes_of_other_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POETRY_HTTP_BASIC_OUR_PYPI_USERNAME", "reader")
    monkeypatch.setenv("POETRY_HTTP_BASIC_OUR_PYPI_PASSWORD", "p@ss")
    monkeypatch.setenv("TOKEN", "t0ken")
    source = '[[tool.{0}.source]]\nname = "our-pypi"\nurl = "{1}"\n'
    pyproject = source.format("poetry", "https://a.example.com/simple") + source.format(
        "pdm", "https://${TOKEN}@b.example.com/simple"
    )
    meta = {"sources": [{"url": "https://c.example.com/simple"}, {"url": DEFAULT_INDEX}]}
    write(tmp_path, **{"pyproject.toml": pyproject, "Pipfile.lock": json.dumps({"_meta": meta})})
    found = {lock: index_of(tmp_path / lock, tmp_path).settings for lock in ("poetry.lock", "pdm.lock", "Pipfile.lock")}
    assert "https://reader:p%40ss@a.example.com/simple" in found["poetry.lock"]
    assert "https://t0ken@b.example.com/simple" in found["pdm.lock"]
    assert "https://c.example.com/simple" in found["Pipfile.lock"]
    assert DEFAULT_INDEX not in found["Pipfile.lock"]


def test_alembic_in_a_group_of_the_lock_has_the_locked_version(tmp_path: Path) -> None:
    lock = poetry("sqlalchemy", "2.0.43", 'groups = ["main"]') + poetry("alembic", "1.16.5", 'groups = ["dev"]')
    write(tmp_path, **{"poetry.lock": lock})
    assert read_requirements(tmp_path).elsewhere["alembic"] == "1.16.5"


def test_alembic_in_an_extra_of_the_project_is_named_with_the_extra(tmp_path: Path) -> None:
    lock = poetry("sqlalchemy", "2.0.43", 'groups = ["main"]') + poetry("alembic", "1.16.5", 'groups = ["dev"]')
    write(tmp_path, **{"poetry.lock": lock})
    pin = Pin("alembic", "alembic==1.16.5")
    assert "another group or extra" in about_a_missing(pin, read_requirements(tmp_path))
    project(tmp_path, 'dependencies = []\noptional-dependencies = {all = ["rich", "alembic"], server = ["alembic"]}')
    message = about_a_missing(pin, read_requirements(tmp_path))
    assert "only in the extra server or another group" in message
    assert "EXTRAS=server" in message


@pytest.mark.parametrize(
    "range_, allowed",
    [
        ("", True), ("<2", True), (">=1.3,<1.4.24", False), ("==1.4.*", True), ("==1.3.*", False), ("~=1.3.3", False),
        ("~=2.0.30", True), (">2.0,<2.0.2", True), ("!=1.4.24", True), ("==1.4.23", False), ("==2.0.0b3", True),
    ],
)  # fmt: skip
def test_a_range_that_allows_any_release_from_the_oldest_on_is_not_too_old(range_: str, *, allowed: bool) -> None:
    assert allows_from(f"sqlalchemy[asyncio]{range_} ; python_version > '3'", "1.4.24") == allowed


@pytest.mark.parametrize(
    "entry",
    [
        poetry("alembic", "1.4.3", 'groups = ["dev"]'),
        poetry("alembic", "1.16.5.dev0", 'groups = ["dev"]')
        + '[package.source]\ntype = "git"\nurl = "https://example.com/a.git"\n',
    ],
    ids=["too old", "of a repository"],
)
def test_alembic_in_a_group_that_the_function_cannot_use_is_another_one(tmp_path: Path, entry: str) -> None:
    write(tmp_path, **{"poetry.lock": poetry("sqlalchemy", "2.0.43", 'groups = ["main"]') + entry})

    found = backend_pins(read_requirements(tmp_path), Platform())

    assert any(
        line.startswith("poetry.lock does not have alembic, so the package has alembic ") for line in found.warnings
    )


def test_a_requirements_file_of_powershell(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("alembic==1.16.5\n", encoding="utf-16")
    assert read_requirements(tmp_path).lines == ("alembic==1.16.5",)


def test_a_folder_in_a_requirements_file_brings_its_dependencies(tmp_path: Path) -> None:
    project = '[project]\nname = "shop"\ndependencies = ["alembic", "rich"]\noptional-dependencies.db = ["asyncpg"]\n'
    lines = "-e .[db]\n./lib\nrich==14.0.0\n"
    write(tmp_path, **{"requirements.txt": lines, "pyproject.toml": project, "lib/setup.py": "..."})

    read = read_requirements(tmp_path)

    assert read.lines == ("rich==14.0.0", "alembic", "asyncpg")
    assert any(line.startswith("requirements.txt takes ./lib, whose dependencies are not in") for line in read.warnings)


def project(folder: Path, lines: str) -> None:
    write(folder, **{"pyproject.toml": f'[project]\nname = "{folder.name}"\n{lines}\n'})


def test_a_folder_s_dependency_on_another_folder_is_none_of_an_index(tmp_path: Path) -> None:
    project(tmp_path / "a", 'dependencies = ["b", "rich ; python_version > \'3\'"]')
    project(tmp_path / "b", "dependencies = []")
    write(tmp_path, **{"requirements.txt": "-e ./a ; sys_platform == 'linux'\n-e ./b\nalembic\n"})

    lines = read_requirements(tmp_path).lines

    assert lines == ("alembic", 'rich; python_version > "3" and sys_platform == "linux"')


def test_an_extra_may_name_others_of_its_project(tmp_path: Path) -> None:
    shop = tmp_path / "requests"
    project(shop, 'dependencies = ["alembic"]\noptional-dependencies = {pg-2 = ["asyncpg"], all = ["requests[PG_2]"]}')
    assert read_requirements(shop, extras=("all",)).lines == ("alembic", "asyncpg")


@pytest.mark.parametrize(
    "table",
    [
        'dependencies = ["alembic"]\n[tool.uv]\nconstraint-dependencies = ["alembic<1.17"]',
        'dependencies = ["alembic"]\n[tool.poetry.dependencies]\nmodels = {path = "models"}',
        'dynamic = ["dependencies"]',
    ],
)
def test_a_project_that_only_its_tool_can_resolve_needs_a_lock(tmp_path: Path, table: str) -> None:
    (tmp_path / ".git").mkdir()
    write(tmp_path, **{"pyproject.toml": '[project]\nname = "above"\ndependencies = ["boto3"]\n'})
    project(tmp_path / "shop", table)
    with pytest.raises(PackageError, match=r"^no lock and no requirements"):
        read_requirements(tmp_path / "shop")


@pytest.mark.parametrize("table", ['dependencies = "alembic"', "optional-dependencies = 1", "dependencies = [1]"])
def test_dependencies_in_another_form_are_refused(tmp_path: Path, table: str) -> None:
    project(tmp_path / "shop", table)
    with pytest.raises(PackageError, match=r"has a \[project\] table that cannot be read"):
        read_requirements(tmp_path / "shop")
