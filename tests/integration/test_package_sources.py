"""Locks with more than wheels: sources, repositories, private indexes, and unused distributions."""

from __future__ import annotations

import json
import secrets
import subprocess
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from infra.package import limit
from infra.package.builder import build
from infra.package.errors import PackageError
from infra.package.layout import BACKEND_LIBRARIES
from infra.package.package_platform import Platform
from infra.package.selection import Selection
from infra.package.uv_messages import place_that_failed
from lambda_migrate.revisions.manifest import read_manifest
from tests.support.backends import ENV, REVISION, make_backend, write
from tests.support.distributions import make_sdist, make_source, make_wheel, serving
from tests.support.samples import sampled, sampled_by_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from infra.package.builder import Package

HERE = Platform()
ARM = Platform("3.13", "arm64")
# Wheels of a Python that a stage may have, and that is not the platform's.
REVISION_B = """revision = "b2"
down_revision = "a1"

def upgrade():
    {up}


def downgrade():
    {down}
"""
FOR_312 = "cp312-cp312-manylinux2014_aarch64"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = tmp_path_factory.mktemp("index")
    make_sdist(index, "zz-shop-pure", {"zz_shop_pure/__init__.py": "import zz_shop_deep\n"}, "zz-shop-deep")
    make_sdist(index, "zz-shop-deep", {"zz_shop_deep.py": ""})
    tree = {
        "__init__.py": "",
        "db/__init__.py": "",
        "db/migrations/env.py": "",
        "db/migrations/versions/a1.py": REVISION,
    }
    make_sdist(index, "zz-shop-trees", {f"zz_shop_trees/{path}": text for path, text in tree.items()})
    make_sdist(index, "zz-shop-native", {"zz_shop_native.py": ""}, native=True)
    make_wheel(index, "zz-shop-user", {"zz_shop_user.py": "import zz_shop_native\n"}, "zz-shop-native")
    make_wheel(index, "zz-shop-maybe", {"zz_shop_maybe.py": ""}, "zz-shop-native ; python_version < '3.9'")
    make_wheel(index, "zz-shop-older", {"zz_shop_older.py": ""}, tag=FOR_312)
    for driver in ("asyncpg", "psycopg2-binary"):
        make_sdist(index, driver, {f"{driver.partition('-')[0]}.py": ""}, native=True)
    make_wheel(index, "zz-shop-old", {"zz_shop_old.py": "import pkg_resources\n"})
    make_wheel(index, "zz-shop-asks", {"zz_shop_asks.py": "import pkg_resources\n"}, "setuptools>=16")
    make_wheel(index, "zz-shop-plain", {"zz_shop_plain.py": ""})
    make_wheel(index, "zz-shop-backport", {"zz_shop_backport.py": "", "asyncio/__init__.py": "raise RuntimeError\n"})
    return index


@pytest.fixture(scope="module")
def index(folder: Path) -> Iterator[str]:
    with serving(folder) as address:
        yield address


def packaged(
    tmp_path: Path, index: str, requirements: str, imports: str, platform: Platform = HERE, **files: str
) -> Package:
    text = f"--extra-index-url {index}\nalembic\nsqlalchemy\npsycopg2-binary\n{requirements}"
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": text, "app/models.py": f"{imports}\n", **files})
    return build(backend, tmp_path / "out", platform)


def names(package: Package) -> set[str]:
    return {one.name for one in package.distributions}


@pytest.mark.stress
def test_a_pure_source_is_built_with_its_requirements(tmp_path: Path, index: str) -> None:
    built = packaged(tmp_path, index, "zz-shop-pure==1.0\n", "import zz_shop_pure", ARM)
    assert {"zz-shop-pure", "zz-shop-deep"} <= names(built)
    again = packaged(tmp_path, index, "zz-shop-pure==1.0\n", "import zz_shop_pure", ARM)
    assert again.digest == built.digest


@pytest.mark.parametrize(
    "locations",
    [
        "script_location = zz_shop_trees.db:migrations",
        pytest.param(
            "script_location = %(here)s/alembic\nversion_locations = zz_shop_trees.db:migrations/versions",
            marks=pytest.mark.stress,
        ),
    ],
    ids=["the tree", "its revisions"],
)
def test_a_source_with_the_tree_is_built(tmp_path: Path, index: str, locations: str) -> None:
    ini = f"[alembic]\n{locations}\n"
    built = packaged(tmp_path, index, "zz-shop-trees==1.0\n", "", HERE, **{"alembic.ini": ini})
    assert (built.heads, "zz-shop-trees" in names(built)) == (("a1",), True)


@pytest.mark.stress
def test_a_built_source_of_a_lock_stays_in_a_package_that_was_over_the_limit(
    tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A requirements file is resolved, and that alone finds what has no wheel. The pins of a lock do not say it.
    releases = (("zz-shop-pure", "1.0"), ("pygments", version("pygments")))
    pins = {name: {"version": f"=={release}"} for name, release in releases}
    lock = json.dumps({"_meta": {"sources": [{"url": index}]}, "default": pins})
    backend = make_backend(tmp_path / "shop", **{"Pipfile.lock": lock, "app/models.py": "import zz_shop_pure\n"})
    (backend / "requirements.txt").unlink()
    whole = build(backend, tmp_path / "out", ARM)
    monkeypatch.setattr(limit, "LARGEST_PACKAGE", whole.size_bytes - 4_000_000)
    assert names(whole) - names(build(backend, tmp_path / "out", ARM)) == {"Pygments"}


@pytest.mark.stress
def test_a_backport_does_not_replace_the_standard_librarys_module(tmp_path: Path, index: str) -> None:
    text = f"--extra-index-url {index}\nalembic\nsqlalchemy\npsycopg2-binary\nzz-shop-backport\n"
    files = {"requirements.txt": text, "app/models.py": "import asyncio\nimport zz_shop_backport\n"}
    backend = make_backend(tmp_path / "shop", **files)
    # The trace imports the tree from the package, with the sys.path of env.py's process.
    built = build(backend, tmp_path / "out", HERE, selection=Selection(traced=True))
    assert (built.directory / BACKEND_LIBRARIES / "zz_shop_backport.py").exists()
    assert not (built.directory / BACKEND_LIBRARIES / "asyncio").exists()


def test_a_source_is_built_without_the_credentials_of_the_job(
    tmp_path: Path, folder: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SESSION_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "SHOP_INDEX"):
        monkeypatch.setenv(name, "secret")
    # A new name, because the store keeps what was built before.
    module = f"zz_shop_{secrets.token_hex(6)}"
    make_sdist(folder, module.replace("_", "-"), {f"{module}.py": ""})

    built = packaged(tmp_path, index, f"{module.replace('_', '-')}==1.0\n", f"import {module}")

    [variables] = built.directory.rglob(f"{module}.variables")
    seen = variables.read_text().splitlines()
    assert "SHOP_INDEX" in seen
    assert not [name for name in seen if name.startswith(("AWS_", "ACTIONS_"))]


UNNEEDED = {
    "for type checkers": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import zz_shop_native",
    "in try": "try:\n    import zz_shop_native\nexcept ImportError:\n    pass",
    "in a function": "def later():\n    import zz_shop_native",
    "nowhere": "import sqlalchemy",
    "required of older Pythons only": "import zz_shop_maybe",
}


@pytest.mark.parametrize("imports", sampled_by_name(UNNEEDED, {"in try"}))
def test_an_unneeded_distribution_without_a_wheel_is_left_out(tmp_path: Path, index: str, imports: str) -> None:
    built = packaged(tmp_path, index, "zz-shop-native==1.0\nzz-shop-plain\nzz-shop-maybe\n", imports)
    assert "zz-shop-native" not in names(built)
    assert "zz-shop-plain" in names(built)
    assert [one for one in built.warnings if "no wheel" in one and "zz-shop-native==1.0" in one]


@pytest.mark.stress
def test_so_it_is_from_a_traced_package(tmp_path: Path, index: str) -> None:
    text = f"--extra-index-url {index}\nalembic\nsqlalchemy\nzz-shop-native==1.0\nzz-shop-plain\nzz-shop-pure==1.0\n"
    files = {"requirements.txt": text, "app/models.py": "import zz_shop_pure\n"}
    backend = make_backend(tmp_path / "shop", **files)
    built = build(backend, tmp_path / "out", HERE, selection=Selection(traced=True))
    assert {"zz-shop-pure", "zz-shop-deep"} <= names(built)
    assert names(built).isdisjoint({"zz-shop-native", "zz-shop-plain"})


def test_needed_distributions_without_a_wheel_are_listed_with_their_importers(tmp_path: Path, index: str) -> None:
    requirements = "zz-shop-native==1.0\nzz-shop-user\nzz-shop-older==1.0\n"
    with pytest.raises(PackageError) as refused:
        packaged(tmp_path, index, requirements, "import zz_shop_user\nimport zz_shop_older", ARM)
    message = str(refused.value)
    assert "zz-shop-native==1.0 (required by zz-shop-user)" in message
    assert "zz-shop-older==1.0 (imported by app/models.py:2)" in message
    assert "`exclude`" in message
    assert "\n" not in message


@pytest.mark.stress
def test_a_python_that_has_wheels_for_all_is_named(tmp_path: Path, index: str) -> None:
    text = r"python3\.12 has wheels for all of them \(the stage's setting `runtime`, or PYTHON_VERSION=3\.12\)"
    with pytest.raises(PackageError, match=text):
        packaged(tmp_path, index, "zz-shop-older==1.0\n", "import zz_shop_older", ARM)


@pytest.mark.stress
def test_a_python_that_the_lock_excludes_is_not_named(tmp_path: Path, index: str) -> None:
    needed = '"alembic", "sqlalchemy", "psycopg2-binary", "zz-shop-older==1.0"'
    project = f'[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.13"\ndependencies = [{needed}]\n'
    files = {
        "pyproject.toml": f'{project}[[tool.uv.index]]\nname = "zz"\nurl = "{index}"\n',
        "app/models.py": "import zz_shop_older\n",
        ".git/HEAD": "",
    }
    backend = make_backend(tmp_path / "shop", **files)
    (backend / "requirements.txt").unlink()
    with pytest.raises(PackageError, match="cannot be built without a compiler") as refused:
        build(backend, tmp_path / "out", ARM)
    assert "python3" not in str(refused.value)


ASYNC_ENV = ENV + "import asyncio\nasync def main(): ...\nasyncio.run(main())\n"


@pytest.mark.stress
def test_the_function_lends_psycopg2_for_drivers_without_a_wheel(tmp_path: Path, index: str) -> None:
    text = f"--extra-index-url {index}\nalembic\nsqlalchemy\nasyncpg==1.0\npsycopg2-binary==1.0\n"
    backend = make_backend(tmp_path / "shop", **{"requirements.txt": text, "app/models.py": "import psycopg2\n"})
    built = build(backend, tmp_path / "out", HERE)
    assert names(built).isdisjoint({"asyncpg", "psycopg2-binary"})
    assert read_manifest((built.directory / "manifest.json").read_text()).drivers == ()
    assert "asyncpg==1.0, psycopg2-binary==1.0" in str(built.warnings)
    # psycopg2 does not help an event loop, nor a module that imports the other driver.
    for files in ({"alembic/env.py": ASYNC_ENV}, {"app/models.py": "import asyncpg\n"}):
        write(backend, **files)
        with pytest.raises(PackageError, match=r"asyncpg==1\.0 .* cannot be built without a compiler"):
            build(backend, tmp_path / "another", HERE)
        write(backend, **{"alembic/env.py": ENV})


@pytest.mark.stress
@pytest.mark.parametrize("name", sampled(["zz-shop-old", "zz-shop-asks"], {"zz-shop-old"}))
def test_setuptools_with_pkg_resources_comes_with_what_imports_it(tmp_path: Path, index: str, name: str) -> None:
    built = packaged(tmp_path, index, f"{name}==1.0\n", f"import {name.replace('-', '_')}")
    assert "setuptools" in names(built)
    assert (built.directory / BACKEND_LIBRARIES / "pkg_resources" / "__init__.py").is_file()


def test_an_excluded_distribution_is_not_packaged(tmp_path: Path, index: str) -> None:
    text = f"--extra-index-url {index}\nalembic\nsqlalchemy\npsycopg2-binary\nzz-shop-user\n"
    files = {"requirements.txt": text, "app/models.py": "import zz_shop_user\n"}
    backend = make_backend(tmp_path / "shop", **files)
    built = build(backend, tmp_path / "out", HERE, selection=Selection(exclude=("zz_shop.native",)))
    assert "zz-shop-user" in names(built)
    assert "zz-shop-native" not in names(built)


@pytest.mark.parametrize(
    "files, missing",
    [
        ({"app/models.py": "import sqlalchemy\nimport gone.deep\n"}, "gone (app/models.py:2)"),
        ({"alembic/env.py": ENV + "from gone import x\n"}, "gone (alembic/env.py:3)"),
        ({"app/__init__.py": "from . import deep\n", "app/deep.py": "import gone\n"}, "gone (app/deep.py:1)"),
        ({"app/models.py": "import distutils.util\n"}, "distutils (app/models.py:1)"),
    ],
    ids=["a model", "env.py", "through a package", "taken out of Python"],
)
def test_an_import_that_finds_nothing_is_named(tmp_path: Path, files: dict[str, str], missing: str) -> None:
    with pytest.raises(PackageError, match=r"^nothing in the package provides ") as refused:
        build(make_backend(tmp_path / "shop", **files), tmp_path / "out", ARM)
    assert missing in str(refused.value)


def test_a_module_beside_the_backend_is_named_with_the_repository(tmp_path: Path) -> None:
    write(tmp_path / "shop", **{".git/HEAD": "", "libraries/zz_shared/__init__.py": ""})
    backend = make_backend(tmp_path / "shop" / "api", **{"app/models.py": "import zz_shared\n"})
    with pytest.raises(
        PackageError, match=r"zz_shared \(app/models\.py:1\): zz_shared is in .*/shop/libraries, out"
    ) as no:
        build(backend, tmp_path / "out", HERE)
    assert str(no.value).endswith(f"make {tmp_path}/shop the backend (BACKEND, or the stage's setting `backend`)")
    built = build(tmp_path / "shop", tmp_path / "out", HERE)
    assert list(built.directory.rglob("zz_shared/__init__.py"))


def test_so_are_those_of_upgrade_and_downgrade(tmp_path: Path) -> None:
    files = {
        "alembic/versions/b2.py": REVISION_B.format(up="from app import deep", down="from gone2.deep import x"),
        "app/deep.py": "import gone1\n",
    }
    with pytest.raises(PackageError, match=r"^nothing in the package provides ") as refused:
        build(make_backend(tmp_path / "shop", **files), tmp_path / "out", ARM)
    assert "gone1 (app/deep.py:1)" in str(refused.value)
    assert "gone2.deep (alembic/versions/b2.py:9)" in str(refused.value)


@pytest.mark.stress
def test_imports_that_may_fail_are_no_failure(tmp_path: Path) -> None:
    models = (
        "from __future__ import annotations\nimport typing\nfrom contextlib import suppress\n"
        "if typing.TYPE_CHECKING:\n    import gone1\n"
        "try:\n    import gone2\nexcept (ImportError, ValueError):\n    gone2 = None\n"
        "with suppress(ImportError):\n    import gone3\n"
        "def later():\n    import gone4\n"
        "import tomllib, boto3\n"
    )
    build(make_backend(tmp_path / "shop", **{"app/models.py": models}), tmp_path / "out", ARM)


def test_a_missing_import_in_another_function_is_a_warning(tmp_path: Path) -> None:
    env_py = f"{ENV}def run_migrations_online():\n    from shop.models import Base\n\n\nrun_migrations_online()\n"
    models = (
        "import sqlalchemy\n\n"
        "def later():\n    import gone1\n"
        "    try:\n        import gone2\n    except ImportError:\n        pass\n"
    )
    backend = make_backend(tmp_path / "shop", **{"alembic/env.py": env_py, "app/models.py": models})

    [warning] = [one for one in build(backend, tmp_path / "out", ARM).warnings if "nothing in the package" in one]

    assert "shop.models (alembic/env.py:4)" in warning
    assert "gone1 (app/models.py:4)" in warning
    assert "gone2" not in warning


@pytest.mark.parametrize("adds", ["import sys\nsys.path.append('lib/python')\n", ""], ids=["sys.path", "PYTHONPATH"])
def test_a_folder_that_is_on_the_path_by_other_means(tmp_path: Path, adds: str) -> None:
    files = {"lib/python/orders/__init__.py": "", "lib/python/orders/models.py": "", "app/models.py": ""}
    env_py = f"{adds}from alembic import context\nimport orders.models\n"
    backend = make_backend(tmp_path / "shop", **files, **{"alembic/env.py": env_py})
    built = build(backend, tmp_path / "out", HERE)
    place = "backend/lib/python" if adds else "backend-libraries"
    assert (built.directory / place / "orders/models.py").is_file()


def git(*arguments: str, cwd: Path) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    done = subprocess.run(["git", *who, *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_distribution_of_a_git_repository(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", "zz-shop-git", {"zz_shop_git.py": ""})
    git("init", "-q", ".", cwd=source)
    git("add", ".", cwd=source)
    git("commit", "-q", "-m", "One", cwd=source)
    commit = git("rev-parse", "HEAD", cwd=source)
    text = f"sqlalchemy\nzz-shop-git @ git+{source.as_uri()}@{commit}\n"
    files = {"requirements.txt": text, "app/models.py": "import zz_shop_git\n"}
    built = build(make_backend(tmp_path / "shop", **files), tmp_path / "out", ARM)
    assert "zz-shop-git" in names(built)


REPOSITORIES = ["https://127.0.0.1:1/team/shared", "ssh://git@127.0.0.1:1/team/shared"]


@pytest.mark.parametrize("url", sampled(REPOSITORIES, {REPOSITORIES[0]}))
def test_a_repository_that_cannot_be_read_is_named(tmp_path: Path, url: str) -> None:
    files = {"requirements.txt": f"sqlalchemy\nshared @ git+{url}\n", "app/models.py": "import shared\n"}
    with pytest.raises(PackageError) as refused:
        build(make_backend(tmp_path / "shop", **files), tmp_path / "out", HERE)
    assert url in str(refused.value)
    assert "wheel" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.fixture
def private(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with serving(folder, login="reader:s3cret") as address:
        yield address


def private_backend(tmp_path: Path, **files: str) -> Path:
    own = {"requirements.txt": "sqlalchemy\nzz-shop-plain==1.0\n", "app/models.py": "import zz_shop_plain\n"}
    return make_backend(tmp_path / "shop", **{**own, **files})


@pytest.mark.stress
def test_a_private_index_of_pips_settings(tmp_path: Path, private: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", private.replace("://", "://reader:s3cret@"))
    assert "zz-shop-plain" in names(build(private_backend(tmp_path), tmp_path / "out", HERE))


def test_a_private_index_of_uvs_settings(tmp_path: Path, private: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX_OURS_USERNAME", "reader")
    monkeypatch.setenv("UV_INDEX_OURS_PASSWORD", "s3cret")
    pyproject = f'[tool.uv]\n[[tool.uv.index]]\nname = "ours"\nurl = "{private}"\n'
    backend = private_backend(tmp_path, **{"pyproject.toml": pyproject})
    assert "zz-shop-plain" in names(build(backend, tmp_path / "out", HERE))


def test_an_index_that_refuses_access_is_named(tmp_path: Path, private: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", private.replace("://", "://reader:wr0ng@"))
    with pytest.raises(PackageError, match=r"^the index 127\.0\.0\.1 refuses access \(401") as refused:
        build(private_backend(tmp_path), tmp_path / "out", HERE)
    assert "wr0ng" not in str(refused.value)
    assert "wheel" not in str(refused.value)


def test_an_index_that_cannot_be_reached_is_named() -> None:
    error = PackageError(
        "", "error: Request failed after 3 retries\n  cause: Failed to fetch: `https://pypi.shop/simple/six/`"
    )
    assert str(place_that_failed(error)).startswith("the index pypi.shop cannot be reached")
    git = PackageError("", "Git operation failed\n  cause: failed to fetch into: https://git.shop/team/shared")
    assert str(place_that_failed(git)).startswith("git cannot read https://git.shop/team/shared")


def test_a_conflict_is_one_line_and_the_proof_is_kept(tmp_path: Path) -> None:
    text = "boto3==1.44.5\nbotocore==1.36.0\nsqlalchemy\n"
    with pytest.raises(PackageError) as refused:
        build(make_backend(tmp_path / "shop", **{"requirements.txt": text}), tmp_path / "out", HERE)
    assert len(str(refused.value)) < 600
    assert "botocore==1.36.0" in str(refused.value)
    assert "\n" in refused.value.details
