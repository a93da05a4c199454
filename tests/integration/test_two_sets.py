"""Two sets of libraries that never meet: the function's own, and those that the backend locks."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from infra.package.builder import build
from infra.package.package_platform import Platform
from tests.support.trees import ENV_PY, Rev, sql, write_tree

if TYPE_CHECKING:
    from pathlib import Path

    from infra.package.builder import Package
    from tests.support.functions import Runner

# Other versions than ours of everything that the function loads, and of what it shares with Alembic.
OTHERS = {
    "alembic": "1.16.5",
    "boto3": "1.36.0",
    "botocore": "1.36.0",
    "jmespath": "1.0.1",
    "psycopg2-binary": "2.9.10",
    "python-dateutil": "2.8.2",
    "s3transfer": "0.11.1",
    "six": "1.16.0",
    "sqlalchemy": "2.0.44",
    "typing-extensions": "4.12.2",
    "urllib3": "2.2.3",
}
MODULES = "alembic, boto3, botocore, dateutil, jmespath, psycopg2, s3transfer, six, sqlalchemy, urllib3"
# What env.py's process has: the folders of the package from which it loaded a module, and what is installed for it.
LOOK = f"""
import gc, importlib.metadata, importlib.util, json, pathlib, sys, types
import {MODULES}, typing_extensions
root = pathlib.Path(__file__).parents[2]
modules = [*sys.modules.values(), *(one for one in gc.get_objects() if isinstance(one, types.ModuleType))]
files = {{pathlib.Path(one.__file__) for one in modules if getattr(one, "__file__", None)}}
print(json.dumps(sorted({{file.relative_to(root).parts[0] for file in files if file.is_relative_to(root)}})))
names = {{one.metadata["Name"].lower().replace("_", "-"): one.version for one in importlib.metadata.distributions()}}
print(json.dumps(names))
print(json.dumps([importlib.util.find_spec("aws_lambda_powertools") is None, str(root / "libraries") in sys.path]))
"""
REVISIONS = [Rev("a1", sql("CREATE TABLE a (id int)")), Rev("b2", sql("CREATE TABLE b (id int)"))]


def packaged(folder: Path, requirements: str, env_py: str = ENV_PY) -> Package:
    tree = write_tree(folder / "shop", REVISIONS, env_py=env_py)
    (tree / "requirements.txt").write_text(requirements)
    return build(tree, folder / "out", Platform())


def printed(runner: Runner) -> list[str]:
    return [event["message"] for event in runner.events("backend.output") if event["source"] == "stdout"]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A backend with other versions of everything."""
    requirements = "".join(f"{name}=={version}\n" for name, version in OTHERS.items())
    return packaged(tmp_path_factory.mktemp("others"), requirements, LOOK + ENV_PY)


@pytest.mark.xdist_group("two-sets")
@pytest.mark.parametrize("event", [{}, {"target": {"schema": "public"}}], ids=["its own process", "a fork"])
def test_another_version_of_every_library(runner: Runner, others: Package, event: dict[str, Any]) -> None:
    ours = {one.name.lower().replace("_", "-"): one.version for one in others.function_distributions}
    assert not ours.items() & OTHERS.items()

    answer = runner.start_package(others.directory).invoke(event)

    assert (answer.error_type, answer.payload.get("revision")) == (None, "b2"), answer.payload
    loaded, installed, rest = map(json.loads, printed(runner))
    assert loaded == ["backend", "backend-libraries", "lambda_migrate"]
    assert installed.items() >= OTHERS.items()
    assert "aws-lambda-powertools" not in installed
    assert rest == [True, False]


def test_a_fork_server_that_died_is_replaced(runner: Runner, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    kills = f"import os, signal\nif os.path.exists({str(flag)!r}):\n    os.kill(os.getppid(), signal.SIGKILL)\n"
    built = packaged(tmp_path, "alembic\nsqlalchemy\n", kills + ENV_PY)
    function = runner.start_package(built.directory)
    event = {"target": {"schema": "public"}, "revision": "+1"}
    assert function.invoke(event).payload["revision"] == "a1"

    flag.touch()
    function.invoke(event)
    flag.unlink()
    answer = function.invoke({**event, "revision": "head"})

    assert (answer.error_type, answer.payload.get("revision")) == (None, "b2"), answer.payload


@pytest.mark.stress
@pytest.mark.parametrize(
    "requirements",
    [
        pytest.param(
            "alembic\nsqlalchemy\npsycopg2-binary\npython-dateutil==4.0.0\n",
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="python-dateutil 4 requires Python 3.11"),
        ),
        pytest.param("alembic\nsqlalchemy\npsycopg2-binary\naiobotocore==2.13.0\n", marks=pytest.mark.stress),
        # The lock with aiobotocore has an old botocore, too.
        pytest.param("alembic\nsqlalchemy\npsycopg2-binary\nboto3==1.20.0\n", marks=pytest.mark.stress),
        pytest.param(
            "alembic\nsqlalchemy\npsycopg2-binary\nurllib3==1.26.20\naws-lambda-powertools==1.31.1\n",
            marks=pytest.mark.stress,
        ),
    ],
    ids=["python-dateutil 4", "aiobotocore", "an old boto3", "old Powertools"],
)
def test_a_lock_that_our_libraries_could_not_live_with(runner: Runner, tmp_path: Path, requirements: str) -> None:
    built = packaged(tmp_path, requirements)

    answer = runner.start_package(built.directory).invoke()

    assert (answer.error_type, answer.payload.get("revision")) == (None, "b2"), answer.payload


@pytest.mark.parametrize(
    "requirements, driver",
    [
        pytest.param("psycopg[binary]", "psycopg", marks=pytest.mark.stress),
        pytest.param("psycopg", "psycopg", marks=pytest.mark.stress),
        pytest.param("", "psycopg2", marks=pytest.mark.stress),
        ("asyncpg", "asyncpg"),
    ],
    ids=["psycopg", "psycopg without libpq", "none", "asyncpg"],
)
def test_the_driver_is_the_backends_or_ours(runner: Runner, tmp_path: Path, requirements: str, driver: str) -> None:
    seen = "import os, sys\nprint(os.environ['DATABASE_URL'].partition(':')[0])\n"
    env_py = seen + ENV_PY
    if driver == "asyncpg":
        env_py = seen + (
            "import asyncio\nfrom alembic import context\nfrom sqlalchemy.ext.asyncio import create_async_engine\n"
            "def run(connection):\n    context.configure(connection=connection)\n"
            "    with context.begin_transaction():\n        context.run_migrations()\n"
            "async def main():\n    engine = create_async_engine(os.environ['DATABASE_URL'])\n"
            "    async with engine.connect() as connection:\n        await connection.run_sync(run)\n"
            "    await engine.dispose()\nasyncio.run(main())\n"
        )
    # Versions that are in the store from the tests above: to compile others takes 3 s.
    pins = f"alembic=={OTHERS['alembic']}\nsqlalchemy[asyncio]=={OTHERS['sqlalchemy']}\n"
    built = packaged(tmp_path, f"{pins}{requirements}\n", env_py)
    manifest = json.loads((built.directory / "manifest.json").read_text())
    assert manifest["drivers"] == ([driver] if requirements else [])

    answer = runner.start_package(built.directory).invoke()

    assert (answer.error_type, answer.payload.get("revision")) == (None, "b2"), answer.payload
    assert printed(runner) == [f"postgresql+{driver}"]


@pytest.mark.stress
def test_lambdas_own_boto3_where_the_lock_has_none(runner: Runner, tmp_path: Path) -> None:
    built = packaged(tmp_path, "alembic\nsqlalchemy\n", "import boto3\nprint(boto3.__file__)\n" + ENV_PY)

    answer = runner.start_package(built.directory).invoke()

    assert answer.error_type is None, answer.payload
    [file] = printed(runner)
    assert file.startswith(str(built.directory / "lambda-libraries"))
