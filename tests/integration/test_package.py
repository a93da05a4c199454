"""The content of a package, files that are never in it, and refused backends, with a real uv."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from uv import find_uv_bin

from infra.package import limit, resolving, store
from infra.package.builder import Package, build
from infra.package.bytecode import find_interpreter
from infra.package.errors import PackageError
from infra.package.layout import BACKEND_LIBRARIES
from infra.package.package_platform import Platform
from infra.package.resolving import Pin
from infra.package.selection import Selection
from infra.package.uv_tool import Index
from tests.support.backends import ENV, INI, REVISION, lock, make_backend, write
from tests.support.samples import sampled

ROOT = Path(__file__).resolve().parents[2]
THIS_MACHINE = Platform()
ARM = Platform("3.13", "arm64")


@pytest.fixture(autouse=True)
def _cache_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", os.environ.get("UV_CACHE_DIR", str(ROOT / ".local/cache/uv")))


def versions(package: Package) -> dict[str, str]:
    """The backend's libraries."""
    return {one.name.lower(): one.version for one in package.distributions}


def function_versions(package: Package) -> dict[str, str]:
    return {one.name.lower(): one.version for one in package.function_distributions}


def tree(directory: Path) -> dict[str, tuple[int, int, str]]:
    """Every path below a folder with its mode, time and content."""
    return {
        path.relative_to(directory).as_posix(): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(directory.rglob("*"))
    }


def backend_paths(package: Package) -> set[str]:
    """Return the packaged files of a backend without bytecode."""
    folder = package.directory / "backend"
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {path.relative_to(folder).as_posix() for path in files}


# The tests of one package run on one worker, which builds it.
LOCKED = pytest.mark.xdist_group("package")


@pytest.fixture(scope="session")
def locked_backend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lock(make_backend(tmp_path_factory.mktemp("locked") / "my shop"), "sqlalchemy==2.0.44", "alembic<1.17")


@pytest.fixture(scope="session")
def package(locked_backend: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return build(locked_backend, tmp_path_factory.mktemp("package") / "with spaces" / "out", THIS_MACHINE)


@LOCKED
def test_it_runs_without_any_other_environment(package: Package) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import lambda_migrate; "
        "import psycopg2, botocore, aws_lambda_powertools; sys.path[0] = str(lambda_migrate.BACKEND_LIBRARIES); "
        "import alembic, sqlalchemy; "
        "from importlib.metadata import version; print(version('sqlalchemy'), sqlalchemy.__version__)"
    )
    interpreter: str = getattr(sys, "_base_executable", sys.executable)
    command = [interpreter, "-I", "-S", "-B", "-c", code, str(package.directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2.0.44", "2.0.44"]


@LOCKED
def test_the_lock_of_the_backend_decides(package: Package) -> None:
    assert versions(package)["sqlalchemy"] == "2.0.44"
    assert versions(package)["alembic"].startswith("1.16.")
    ours = (ROOT / "requirements.txt").read_text()
    assert f"botocore=={function_versions(package)['botocore']} " in ours


@LOCKED
def test_the_summary_of_a_package(package: Package) -> None:
    assert (package.heads, package.revisions) == (("a1",), 1)
    assert package.size_bytes == sum(path.stat().st_size for path in package.directory.rglob("*") if path.is_file())
    assert {"alembic", "mako", "sqlalchemy"} <= versions(package).keys()
    assert {"aws_lambda_powertools", "botocore", "psycopg2-binary"} <= function_versions(package).keys()


@LOCKED
def test_nothing_of_the_installer_or_the_machine_is_in_it(package: Package) -> None:
    names = {path.name for path in package.directory.rglob("*")}
    assert not names & {"bin", ".lock", "direct_url.json", "INSTALLER", "REQUESTED", "uv_cache.json"}
    modes = {path.stat().st_mode & 0o777 for path in package.directory.rglob("*")}
    assert modes <= {0o755, 0o644}
    records = list(package.directory.glob("*/*.dist-info/RECORD"))
    assert len(records) > 10
    for record in records:
        for line in record.read_text(encoding="utf-8").splitlines():
            assert (record.parents[1] / line.rsplit(",", 2)[0].strip('"')).is_file()


@LOCKED
def test_building_twice_gives_the_same_bytes(locked_backend: Path, package: Package, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()  # an empty folder may be replaced
    again = build(locked_backend, tmp_path / "again", THIS_MACHINE)
    assert tree(again.directory) == tree(package.directory)
    assert replace(again, directory=package.directory) == package


@LOCKED
def test_the_digest_tells_a_change_that_keeps_sizes_and_times(
    locked_backend: Path, package: Package, tmp_path: Path
) -> None:
    changed = tmp_path / "backend"
    shutil.copytree(locked_backend, changed)
    [revision] = (changed / "alembic" / "versions").glob("*.py")
    revision.write_text(revision.read_text().replace("a1", "b2"))

    assert build(changed, tmp_path / "out", THIS_MACHINE).digest != package.digest


@LOCKED
def test_a_package_is_replaced_as_a_whole(locked_backend: Path, package: Package, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(package.directory, out)
    (out / "left over.py").touch()
    build(locked_backend, out, THIS_MACHINE)
    assert tree(out) == tree(package.directory)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_files_that_the_migrations_need_are_packaged(tmp_path: Path) -> None:
    never = (
        ".env", "app/.env", "app/.env.prod", ".git/config", "tests/test_app.py", "test/test_app.py",
        "alembic/tests/test_env.py", "app/__pycache__/models.cpython-311.pyc", "app/.mypy_cache/x.json",
        ".venv/pyvenv.cfg", "app/sandbox/pyvenv.cfg", "app/sandbox/lib.py", "app/venv/lib.py",
        "app/node_modules/x/index.js", "app/dev.db", "app/dev.sqlite3", "app/debug.log", "app/.DS_Store",
        "app/.idea/x.xml", "app/server.pem", "app/server.key", "app/id_rsa", "app/.netrc", "app/.pgpass",
        "app/Dockerfile", "docker-compose.yml", "unused/__init__.py", "README.md", "alembic/.env",
    )  # fmt: skip
    needed = {
        "app/data/rows.json": "[]",
        "app/models.py": "from shared import types\nimport importlib\nimportlib.import_module('plugins.audit')\n",
        "app/env/__init__.py": "",
        "shared/types.py": "",
        "plugins/audit.py": "",
        "settings.py": "",
        "src/domain/__init__.py": "",
        "alembic/versions/rows.sql": "",
        "alembic/env.py": f"{ENV}def run():\n    import settings\n    from domain import x\n",
        "alembic.ini": INI.replace("sys_path = .", "sys_path = .:src"),
    }
    backend = make_backend(tmp_path / "shop", **dict.fromkeys(never, "secret"), **needed)
    built = build(backend, tmp_path / "out", THIS_MACHINE)
    assert backend_paths(built) == {
        *needed, "alembic/versions/a1_first.py", "app/__init__.py",
    }  # fmt: skip


@pytest.mark.parametrize("name", sampled([".versions", "env/versions"], {"env/versions"}))
def test_a_version_location_is_packaged_whatever_its_name(tmp_path: Path, name: str) -> None:
    ini = f"{INI}version_locations = %(here)s/alembic/versions:%(here)s/alembic/{name}\n"
    second = REVISION.replace("None", '"a1"').replace('revision = "a1"', 'revision = "b2"', 1)
    backend = make_backend(tmp_path / "shop", **{"alembic.ini": ini, f"alembic/{name}/b2.py": second})
    built = build(backend, tmp_path / "out", THIS_MACHINE)
    assert built.heads == ("b2",)
    assert f"alembic/{name}/b2.py" in backend_paths(built)


@pytest.mark.stress
def test_an_import_is_found_behind_a_long_chain_of_conditions(tmp_path: Path) -> None:
    chain = "".join(f"elif x == {number}:\n    pass\n" for number in range(2_000))
    files = {"app/models.py": f"x = 0\nif x == -1:\n    pass\n{chain}else:\n    import shared\n", "shared.py": ""}
    assert "shared.py" in backend_paths(build(make_backend(tmp_path / "shop", **files), tmp_path / "out", THIS_MACHINE))


def test_links_inside_the_backend_are_followed_and_loops_end(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop", **{"sql/rows.sql": "rows", "app/.secret": "secret"})
    (backend / "app/sql").symlink_to(backend / "sql")
    (backend / "app/loop").symlink_to(backend / "app")
    (backend / "app/self").symlink_to(backend / "app/self")
    (backend / "app/harmless.txt").symlink_to(backend / "app/.secret")
    paths = backend_paths(build(backend, tmp_path / "out", THIS_MACHINE))
    assert "app/sql/rows.sql" in paths
    assert not {"app/harmless.txt", "app/self"} & paths
    assert not [path for path in paths if path.startswith("app/loop")]


@pytest.mark.stress
def test_extra_files_keep_their_executable_bit(tmp_path: Path) -> None:
    write(tmp_path, bootstrap="#!/bin/sh\n", ca="certificate")
    (tmp_path / "bootstrap").chmod(0o700)
    extra = {"bootstrap": tmp_path / "bootstrap", "certificates/ca.pem": tmp_path / "ca"}
    out = build(make_backend(tmp_path / "shop"), tmp_path / "out", THIS_MACHINE, extra_files=extra).directory
    assert (out / "bootstrap").stat().st_mode & 0o777 == 0o755
    assert (out / "certificates/ca.pem").stat().st_mode & 0o777 == 0o644


def test_folders_of_a_workspace_are_installed_beside_the_requirements(tmp_path: Path) -> None:
    write(tmp_path / "common", **{"pyproject.toml": "", "src/common/__init__.py": "", "src/common/x.sql": ""})
    files = {"app/models.py": "import common\n", "requirements.txt": "-e ../common\nsqlalchemy>=2.0\n"}
    out = build(make_backend(tmp_path / "shop", **files), tmp_path / "out", THIS_MACHINE).directory
    out /= BACKEND_LIBRARIES
    assert (out / "common/__init__.py").is_file()
    assert (out / "common/x.sql").is_file()


@pytest.mark.stress
def test_a_member_of_a_uv_workspace(tmp_path: Path) -> None:
    project = '[project]\nname = "{}"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = [{}]\n'
    build_system = '[build-system]\nrequires = ["uv_build"]\nbuild-backend = "uv_build"\n'
    source = "[tool.uv.sources]\ncommon = { workspace = true }\n"
    write(
        tmp_path / "work",
        **{
            "pyproject.toml": '[tool.uv.workspace]\nmembers = ["shop", "packages/common"]\n',
            "packages/common/pyproject.toml": project.format("common", '"botocore<1.37"') + build_system,
            "packages/common/src/common/__init__.py": "",
        },
    )
    files = {"pyproject.toml": project.format("shop", '"common"') + source, "app/models.py": "import common, domain\n"}
    backend = make_backend(tmp_path / "work/shop", **files, **{"src/domain/__init__.py": ""})
    (backend / "requirements.txt").unlink()
    subprocess.run([find_uv_bin(), "lock", "--quiet", "--python", sys.executable], cwd=backend, check=True)
    built = build(backend, tmp_path / "out", THIS_MACHINE)
    assert (built.directory / BACKEND_LIBRARIES / "common/__init__.py").is_file()

    assert versions(built)["botocore"].startswith("1.36.")


@pytest.mark.parametrize(
    "script_location, moved_to",
    [
        ("db/migrations", "db/migrations"),
        pytest.param("%(here)s/db/migrations", "db/migrations", marks=pytest.mark.stress),
        ("app:migrations", "app/migrations"),
    ],
)
def test_forms_of_script_location(tmp_path: Path, script_location: str, moved_to: str) -> None:
    ini = f"[alembic]\nscript_location = {script_location}\nversion_locations = {moved_to}/a {moved_to}/b\n"
    second = REVISION.replace("None", "'a1'").replace('"a1"', '"b2"')
    backend = make_backend(
        tmp_path / "shop",
        **{
            "alembic.ini": ini,
            f"{moved_to}/env.py": "",
            f"{moved_to}/a/a1.py": REVISION,
            f"{moved_to}/b/b2.py": second,
        },
    )
    built = build(backend, tmp_path / "out", THIS_MACHINE)
    assert built.heads == ("b2",)
    assert {f"{moved_to}/env.py", f"{moved_to}/a/a1.py", f"{moved_to}/b/b2.py"} <= backend_paths(built)


def test_a_tree_that_a_requirement_brings_is_not_copied(tmp_path: Path) -> None:
    ini = "[alembic]\nscript_location = alembic:templates/generic\nversion_locations = %(here)s/versions\n"
    backend = make_backend(tmp_path / "shop", **{"alembic.ini": ini, "versions/a1.py": REVISION})
    built = build(backend, tmp_path / "out", THIS_MACHINE)
    assert built.heads == ("a1",)
    assert backend_paths(built) == {"alembic.ini", "versions/a1.py"}


def test_a_tree_that_no_requirement_brings_is_refused(tmp_path: Path) -> None:
    ini = INI.replace("%(here)s/alembic", "alembic:templates/gone")
    backend = make_backend(tmp_path / "shop", **{"alembic.ini": ini, "alembic/templates/x": ""})
    assert refusal(backend, tmp_path / "out").startswith("script_location alembic/templates/gone is no folder of ")

    (backend / "alembic.ini").write_text(INI.replace("%(here)s/alembic", "zz_gone:migrations"))
    assert refusal(backend, tmp_path / "out").startswith("nothing in the package provides zz_gone (alembic.ini:2)")


def test_a_configuration_in_pyproject(tmp_path: Path) -> None:
    toml = '[tool.alembic]\nscript_location = "%(here)s/alembic"\nprepend_sys_path = ["."]\n'
    backend = make_backend(tmp_path / "shop", **{"pyproject.toml": toml})
    (backend / "alembic.ini").unlink()
    built = build(backend, tmp_path / "out", THIS_MACHINE, "pyproject.toml")
    assert {"pyproject.toml", "alembic/env.py", "app/models.py"} <= backend_paths(built)


def refusal(backend: Path, out: Path, platform: Platform = THIS_MACHINE) -> str:
    """Return the one line with which the builder refuses a backend. It must leave no file."""
    before = tree(out.parent)
    with pytest.raises(PackageError) as refused:
        build(backend, out, platform)
    assert tree(out.parent).keys() == before.keys()
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    "files, missing, message",
    [
        ({}, "alembic.ini", "no alembic.ini in "),
        ({}, "alembic/env.py", "no env.py in alembic; "),
        (
            {},
            "alembic/versions/a1_first.py",
            "no revision in alembic/versions; write the first one: make revision BACKEND=",
        ),
        ({}, "requirements.txt", "no lock and no requirements.txt in "),
        ({"alembic.ini": "[alembic]\n"}, "", "alembic.ini has no script_location; "),
        ({"alembic.ini": "[loggers]\n"}, "", "alembic.ini has no [alembic] section"),
        (
            {"alembic.ini": "[alembic]\n[core]\nscript_location = a\n[tenant]\nscript_location = b\n"},
            "",
            "alembic.ini has its script_location in [core], [tenant], for alembic's option --name, and a stage ",
        ),
        ({"alembic.ini": "no section"}, "", "alembic.ini cannot be read: "),
        ({"alembic.ini": INI + "databases = a, b\n"}, "", "alembic.ini lists several `databases` (the multidb "),
        ({"alembic.ini": INI.replace("/alembic", "/gone")}, "", "script_location gone is no folder of "),
        ({"alembic.ini": INI.replace("%(here)s", "..")}, "", "script_location ../alembic lies outside "),
        ({"alembic.ini": INI.replace("%(here)s/alembic", "/etc")}, "", "script_location /etc lies outside "),
        ({"alembic/versions/b2.py": "revision = (\n"}, "", "alembic/versions/b2.py:1: syntax error: "),
        (
            {"requirements.txt": "alembic==1.6.5\n"},
            "",
            "requirements.txt has alembic==1.6.5, but the function needs",
        ),
        ({"requirements.txt": "-e ./gone\n"}, "", "requirements.txt takes a distribution from ./gone, which is no "),
    ],
)
def test_a_backend_that_cannot_be_packaged_is_refused(
    tmp_path: Path, files: dict[str, str], missing: str, message: str
) -> None:
    backend = make_backend(tmp_path / "shop", **files)
    if missing:
        (backend / missing).unlink()
    assert refusal(backend, tmp_path / "out").startswith(message)


def test_a_missing_backend_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone", tmp_path / "out").startswith("no folder ")


UNSOLVED = ["pyyaml==5.4.1", "boto3==1.44.5\nbotocore==1.36.0"]


@pytest.mark.parametrize("requirement", sampled(UNSOLVED, {UNSOLVED[1]}))
def test_a_lock_without_a_set_of_wheels_is_refused(tmp_path: Path, requirement: str) -> None:
    files = {"requirements.txt": f"{requirement}\n", "app/models.py": "import yaml\n"}
    backend = make_backend(tmp_path / "shop", **files)
    message = refusal(backend, tmp_path / "out", ARM)
    assert message.startswith("requirements.txt has no set of wheels for Python 3.13 on arm64: ")
    assert all(pin in message for pin in requirement.split())
    assert len(message) < 600


def test_a_lock_for_a_later_python_is_refused(tmp_path: Path) -> None:
    uv_lock = 'version = 1\nrevision = 3\nrequires-python = ">=3.14"\n\n[[package]]\nname = "shop"\nversion = "0"\n'
    pyproject = '[project]\nname = "shop"\nversion = "0"\nrequires-python = ">=3.14"\n'
    virtual = 'source = { virtual = "." }\n'
    backend = make_backend(tmp_path / "shop", **{"uv.lock": uv_lock + virtual, "pyproject.toml": pyproject})
    assert refusal(backend, tmp_path / "out", ARM).startswith(
        "uv.lock is for Python 3.14 and later, but the package is"
    )
    if sys.version_info < (3, 14):
        assert "rm -rf .venv && make migrate PYTHON=" in refusal(backend, tmp_path / "out")


def test_a_link_out_of_the_backend_is_refused(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop")
    write(tmp_path, elsewhere="secret")
    (backend / "app/link").symlink_to(tmp_path / "elsewhere")
    assert "is a link that leads out of the backend" in refusal(backend, tmp_path / "out")


@pytest.mark.stress
def test_a_package_too_large_for_lambda_lists_the_largest(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop")
    with (backend / "app/rows.csv").open("wb") as file:
        file.truncate(262_144_000)
    message = refusal(backend, tmp_path / "out")
    assert message.startswith("the package would be 2")
    assert "Lambda takes 250.0 MB" in message
    assert "largest distributions: psycopg2-binary " in message


def with_a_huge_wheel(tmp_path: Path, models: str) -> Path:
    """A backend whose lock has a wheel that is over Lambda's limit. No server has it."""
    wheel = 'name = "{0}-1.0-py3-none-any.whl", url = "https://127.0.0.1:9/{0}-1.0-py3-none-any.whl", size = {1}'
    packages = (
        '[[packages]]\nname = "zz-shop-torch"\nversion = "1.0"\n'
        f'wheels = [{{ {wheel.format("zz_shop_torch", 300_000_000)}, hashes = {{ sha256 = "{"0" * 64}" }} }}]\n'
    )
    lock = f'lock-version = "1.0"\ncreated-by = "a test"\n{packages}'
    backend = make_backend(tmp_path / "shop", **{"pylock.toml": lock, "app/models.py": models})
    (backend / "requirements.txt").unlink(missing_ok=True)
    return backend


def test_needed_wheels_that_cannot_fit_are_refused_before_they_are_downloaded(tmp_path: Path) -> None:
    message = refusal(with_a_huge_wheel(tmp_path, "import zz_shop_torch\n"), tmp_path / "out")

    assert message.startswith(
        "the distributions that the migrations import have 286.1 MB as compressed wheels, and Lambda takes 250.0 MB"
    )
    assert message.endswith("the largest wheels: zz-shop-torch (286.1 MB)")


def test_huge_wheels_that_nothing_imports_are_neither_packaged_nor_downloaded(tmp_path: Path) -> None:
    built = build(with_a_huge_wheel(tmp_path, "import sqlalchemy\n"), tmp_path / "out", Platform())

    assert {"alembic", "SQLAlchemy"} <= {one.name for one in built.distributions}
    [warning] = [one for one in built.warnings if "Lambda's limit" in one]
    assert "import: zz-shop-torch==1.0; choose" in warning


@pytest.mark.stress
def test_what_nothing_imports_is_left_out_of_a_package_over_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "sqlalchemy\npsycopg2-binary\npygments\npyyaml\n"
    files = {"requirements.txt": lines, "app/models.py": "def later():\n    import yaml\n"}
    backend = make_backend(tmp_path / "shop", **files)
    whole = build(backend, tmp_path / "out", Platform())
    assert "Pygments" in {one.name for one in whole.distributions}

    monkeypatch.setattr(limit, "LARGEST_PACKAGE", whole.size_bytes - 4_000_000)
    built = build(backend, tmp_path / "out", Platform())

    # An import in a function may run, and no module names its driver.
    assert {one.name for one in whole.distributions} - {one.name for one in built.distributions} == {"Pygments"}
    [warning] = [one for one in built.warnings if "Lambda's limit" in one]
    assert "modules import: pygments==" in warning
    assert not list((tmp_path / "out").rglob("pygments*"))
    # Python loads this class by its name.
    write(backend, **{"app/models.py": "LOGGING = {'class': 'pygments.styles.Style'}\n"})
    with pytest.raises(PackageError, match="the package would be "):
        build(backend, tmp_path / "out", Platform())
    monkeypatch.setattr(limit, "LARGEST_PACKAGE", 1_000_000)
    whole_message = refusal(backend, tmp_path / "another")
    assert whole_message.startswith("the package would be ")
    assert "TRACED=1" in whole_message
    with pytest.raises(PackageError) as refused:
        build(backend, tmp_path / "another", Platform(), selection=Selection(traced=True))
    assert "TRACED" not in str(refused.value)
    assert "EXCLUDE=NAMES" in str(refused.value)


def test_a_foreign_folder_is_not_replaced(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop")
    write(tmp_path / "out", keep="mine")
    assert "was not built here" in refusal(backend, tmp_path / "out")
    assert "cannot be replaced" in refusal(backend, backend)
    with pytest.raises(PackageError, match="cannot be replaced"):
        build(backend, tmp_path, THIS_MACHINE)
    assert (tmp_path / "out/keep").read_text() == "mine"


def test_a_hash_of_the_lock_is_checked(tmp_path: Path) -> None:
    line = f"six==1.17.0 --hash=sha256:{'0' * 64}\n"
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": line})
    assert "ash mismatch" in refusal(backend, tmp_path / "out")


@pytest.mark.stress
def test_a_requirement_without_wheels_for_the_target_is_refused(tmp_path: Path) -> None:
    files = {"requirements.txt": "asyncpg==0.29.0\n", "app/models.py": "import asyncpg\n"}
    message = refusal(make_backend(tmp_path / "shop", **files), tmp_path / "out", Platform("3.14", "arm64"))
    assert message.startswith("requirements.txt has no set of wheels for Python 3.14 on arm64: ")
    assert "asyncpg==0.29.0" in message


def test_the_manifest_agrees_with_alembic(tmp_path: Path) -> None:
    built = build(ROOT / "back", tmp_path / "out", THIS_MACHINE)

    manifest = json.loads((built.directory / "manifest.json").read_text())
    graph = json.loads((built.directory / "graph.json").read_text())["revisions"]
    folder = built.directory / "backend"
    script = ScriptDirectory.from_config(Config(folder / "alembic.ini"))
    theirs = {one.revision: one for one in script.walk_revisions()}
    assert manifest["heads"] == script.get_heads()
    assert manifest["revisions"] == len(theirs) == len(graph)
    assert manifest["graph_sha256"] == sha256((built.directory / "graph.json").read_bytes()).hexdigest()
    assert {one["revision"]: (one["description"], one["path"]) for one in graph} == {
        id_: (one.doc, Path(one.path).relative_to(built.directory).as_posix()) for id_, one in theirs.items()
    }
    for one in graph:
        assert one["sha256"] == sha256((built.directory / one["path"]).read_bytes()).hexdigest()
    place = {one["revision"]: position for position, one in enumerate(graph)}
    assert all(place[down] < place[one["revision"]] for one in graph for down in one["down_revisions"])


@LOCKED
def test_a_damaged_entry_of_the_store_is_made_again(
    locked_backend: Path, package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "store"
    mine.mkdir()
    for entry in store.CACHE.glob("[!.]*"):
        if entry.name.startswith(("six-", "jmespath-")):
            shutil.copytree(entry, mine / entry.name)
        else:
            (mine / entry.name).symlink_to(entry)
    monkeypatch.setattr(store, "CACHE", mine)
    for damaged in mine.glob("six-*/files/six.py*"):
        damaged.write_bytes(b"x" * damaged.stat().st_size)
    for notes in mine.glob("jmespath-*/notes.json"):
        notes.write_text("{")
    left, at_work = mine / ".making-left", mine / ".making-at-work"
    left.mkdir()
    at_work.mkdir()
    os.utime(left, (0, 0))

    assert build(locked_backend, tmp_path / "out", THIS_MACHINE).digest == package.digest
    assert not left.exists()  # of a build that was killed
    assert at_work.exists()


def test_builds_at_once_share_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CACHE", tmp_path / "store")
    installed: list[Path] = []

    def install(pins: list[Pin], platform: Platform, site: Path, index: Index) -> None:
        installed.append(site)
        resolving.install(pins, platform, site, index)

    monkeypatch.setattr(store, "install", install)
    [line] = [one for one in (ROOT / "requirements.txt").read_text().replace("\\\n", "").splitlines() if "six==" in one]
    pins = [Pin("six", line)]
    recipe = store.Recipe(THIS_MACHINE, find_interpreter(THIS_MACHINE), "libraries", Index())
    with ThreadPoolExecutor(4) as pool:
        fetched = list(pool.map(lambda _: store.fetch(pins, recipe), range(4)))
    assert len({one[0].files for one in fetched}) == 1
    entries = [path.name for path in (tmp_path / "store").iterdir() if path.is_dir()]
    assert entries == [fetched[0][0].directory.name]
    assert all(fetched[0][0].read(file) for file in fetched[0][0].files if file.size)
    assert len(installed) == 1
    # A build that makes the store too large leaves the entries of the others, until they are old.
    monkeypatch.setattr(store, "LARGEST_CACHE_BYTES", 0)
    store.fetch(pins, replace(recipe, folder="more"))
    assert fetched[0][0].directory.exists()
    os.utime(fetched[0][0].directory, (0, 0))
    store.fetch(pins, replace(recipe, folder="and-more"))
    assert not fetched[0][0].directory.exists()


@pytest.mark.stress
def test_a_dependency_group_in_place_of_the_dependencies(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "shop")
    project = (
        '[project]\nname = "shop"\nversion = "0"\nrequires-python = ">=3.10"\ndependencies = ["rich"]\n'
        '[dependency-groups]\nmigrations = ["sqlalchemy==2.0.44"]\n'
    )
    (backend / "requirements.txt").unlink()
    write(backend, **{"pyproject.toml": project})
    subprocess.run([find_uv_bin(), "lock", "--quiet", "--python", sys.executable], cwd=backend, check=True)

    built = build(backend, tmp_path / "out", THIS_MACHINE, selection=Selection(dependency_group="migrations"))

    assert versions(built)["sqlalchemy"] == "2.0.44"
    assert "rich" not in versions(built)
    with pytest.raises(PackageError, match="migration"):
        build(backend, tmp_path / "out", THIS_MACHINE, selection=Selection(dependency_group="migration"))


def test_a_dependency_group_needs_a_uv_lock(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"^dependency_group is for a uv\.lock, and "):
        build(
            make_backend(tmp_path / "shop"),
            tmp_path / "out",
            THIS_MACHINE,
            selection=Selection(dependency_group="migrations"),
        )


TRACED = Selection(traced=True, environment={"SHOP": "open"})


def traced_backend(folder: Path, **files: str) -> Path:
    env = (
        "import os\nos.environ['SHOP'], os.environ['DATABASE_URL']\nfrom app import models\n"
        "from alembic import context\ncontext.configure(url='postgresql://')\ncontext.run_migrations()\n"
    )
    own = {
        "alembic/env.py": env,
        "alembic/versions/a1_first.py": f"{REVISION}    import markdown_it\n".replace("...", ""),
        "app/models.py": "import sqlalchemy, rich.text\n",
        "requirements.txt": "sqlalchemy\nrich\nmarkdown-it-py\njsonschema\nasyncpg\n",
    }
    return make_backend(folder, **{**own, **files})


@pytest.mark.stress
def test_traced_packages_what_the_tree_imports(tmp_path: Path) -> None:
    built = build(traced_backend(tmp_path / "shop"), tmp_path / "out", THIS_MACHINE, selection=TRACED)

    # Imported, named in an upgrade(), a driver, what the function is made of; and not what nobody asks for.
    assert {"rich", "markdown-it-py", "asyncpg", "alembic"} <= versions(built).keys()
    assert not {"jsonschema", "rpds-py", "attrs"} & versions(built).keys()


@pytest.mark.parametrize("connects", [False, True], ids=["configures", "connects first"])
def test_revisions_are_traced_after_env_py_as_alembic_loads_them(tmp_path: Path, *, connects: bool) -> None:
    connect = "import socket\nsocket.create_connection(('127.0.0.1', 1))\n" if connects else ""
    files = {
        "app/late.py": "import sys\nif 'app.models' not in sys.modules: raise ImportError('too early')\nimport rich\n",
        "app/models.py": "import sqlalchemy\n",
        "alembic/versions/a1_first.py": f"from app import late\n{REVISION}",
    }
    backend = traced_backend(tmp_path / "shop", **files)
    env_py = backend / "alembic" / "env.py"
    env_py.write_text(env_py.read_text().replace("context.configure(", f"{connect}context.configure("))

    built = build(backend, tmp_path / "out", THIS_MACHINE, selection=TRACED)

    assert "rich" in versions(built)


@pytest.mark.stress
def test_a_tree_is_traced_in_the_folder_where_alembic_is_run(tmp_path: Path) -> None:
    backend = traced_backend(tmp_path / "shop")
    (backend / "db").mkdir()
    (backend / "alembic.ini").unlink()
    (backend / "db/alembic.ini").write_text("[alembic]\nscript_location = alembic\nprepend_sys_path = .\n")

    built = build(backend, tmp_path / "out", THIS_MACHINE, "db/alembic.ini", selection=TRACED)

    assert "rich" in versions(built)


def test_the_traced_code_gets_no_credentials_of_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "seen"
    secrets = {
        "AWS_ACCESS_KEY_ID": "secret-1",
        "AWS_SECRET_ACCESS_KEY": "secret-2",
        "AWS_SESSION_TOKEN": "secret-3",
        "AWS_PROFILE": "secret-4",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "secret-5",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "secret-6",
        "GITHUB_TOKEN": "secret-7",
        "NPM_TOKEN": "secret-8",
        "DATABASE_URL": "postgresql://u:secret-9@h/d",
        "UV_INDEX_PRIVATE_PASSWORD": "secret-10",
    }
    for name, value in {**secrets, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    # By each way in: an import of env.py, and a revision.
    looks = f"import os\nopen({str(kept)!r}, 'a').write(repr(dict(os.environ)))\n"
    backend = traced_backend(tmp_path / "shop", **{"app/looks.py": looks})
    env_py = backend / "alembic" / "env.py"
    env_py.write_text("from app import looks\n" + env_py.read_text())

    built = build(backend, tmp_path / "out", THIS_MACHINE, selection=TRACED)

    assert {"rich", "markdown-it-py", "asyncpg", "alembic"} <= versions(built).keys()
    assert not {"jsonschema", "rpds-py", "attrs"} & versions(built).keys()
    seen = kept.read_text()
    assert "'SHOP': 'open'" in seen
    assert [value for value in secrets.values() if value in seen] == []
    assert str(tmp_path / "shop") not in seen.partition("'HOME': ")[2].partition(",")[0]
    assert f"'HOME': '{tmp_path}'" not in seen


@pytest.mark.stress
@pytest.mark.parametrize(
    "files, expected",
    [
        ({"app/models.py": "__import__('gone')\n"}, "ModuleNotFoundError: No module named 'gone'"),
        pytest.param({"alembic/env.py": "raise SystemExit('no')\n"}, "SystemExit: no", marks=pytest.mark.stress),
        pytest.param({"app/models.py": "import os\nos._exit(3)\n"}, "it ended with 3", marks=pytest.mark.stress),
    ],
)
def test_a_tree_that_cannot_be_traced_is_refused(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    with pytest.raises(PackageError, match=r"^the tree could not be traced: ") as refused:
        build(traced_backend(tmp_path / "shop", **files), tmp_path / "out", THIS_MACHINE, selection=TRACED)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.stress
def test_the_error_of_a_too_large_package_lists_distributions_without_an_import(tmp_path: Path) -> None:
    backend = traced_backend(tmp_path / "shop", **{"alembic/env.py": "from app import models\n"})
    with (backend / "app/rows.csv").open("wb") as file:
        file.truncate(262_144_000)
    message = refusal(backend, tmp_path / "out")
    assert "dependency_group" in message
    assert "requirements: traced" in message
    assert "packaging: image" in message


def cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.package", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.stress
@LOCKED
def test_the_command_prints_a_summary_of_the_package(locked_backend: Path, tmp_path: Path) -> None:
    done = cli(locked_backend, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "heads      a1" in done.stdout
    assert "revisions  1" in done.stdout
    assert "MB unpacked" in done.stdout


def test_the_command_fails_in_one_line(tmp_path: Path) -> None:
    done = cli(tmp_path / "gone", tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no folder ")
    assert done.stderr.count("\n") == 1


WRONG = [(), ("x", "y", "--python", "3.13"), ("x", "y", "--architecture", "mips")]


@pytest.mark.stress
@pytest.mark.parametrize("arguments", sampled(WRONG, {WRONG[2]}))
def test_wrong_usage_has_its_own_exit_code(arguments: tuple[str, ...]) -> None:
    assert cli(*arguments).returncode == 2


@pytest.mark.stress
def test_the_reference_backend(tmp_path: Path) -> None:
    built = build(ROOT / "back", tmp_path / "out", ARM)
    assert len(built.heads) == 1
    assert not [path for path in backend_paths(built) if path.endswith((".pyc", ".env"))]
