"""An operator gets `migrate` without this checkout: as a package, as an action of GitHub, and as a container."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from uv import find_uv_bin

from migrate_cli import __version__
from tests.support.aws_stub import Stub, serve
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ACTION = yaml.safe_load((ROOT / "action" / "action.yml").read_text(encoding="utf-8"))
PINNED = (ROOT / "action" / "requirements.txt").read_text(encoding="utf-8")


def closure(requirements: list[str]) -> set[str]:
    """The names of the distributions that these requirements install, with all that those require."""
    found: set[str] = set()
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        wanted = waiting.pop()
        name = wanted.name.lower().replace("_", "-")
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += [Requirement(each) for each in metadata.requires(name) or ()]
    return found


def test_the_package_has_the_version_that_the_command_prints() -> None:
    assert PROJECT["version"] == __version__


def test_the_command_imports_only_what_the_package_requires() -> None:
    """The quick check of the wheel; the test below installs it in an empty environment."""
    code = (
        "import json, sys, migrate_cli.cli, migrate_cli.stages, infra.stages;"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    out = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    of_module = metadata.packages_distributions()
    used = {of_module[name][0].lower().replace("_", "-") for name in json.loads(out) if name in of_module}

    # setuptools adds itself to every interpreter of an environment, and botocore takes certifi if it is there.
    assert used - closure(PROJECT["dependencies"]) <= {"certifi", "setuptools"}


def test_the_actions_requirements_are_complete_and_pinned_by_hash() -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==", PINNED, re.MULTILINE))

    assert closure(PROJECT["dependencies"]) <= pinned
    assert all("--hash=" in entry for entry in re.split(r"\n(?=\S)", PINNED) if "==" in entry)


def test_the_actions_inputs_are_all_used() -> None:
    text = json.dumps(ACTION["runs"])

    assert set(re.findall(r"inputs\.([\w-]+)", text)) == ACTION["inputs"].keys()


# --- as an operator installs it ---


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and nothing else, in a folder far from the checkout."""
    folder = tmp_path_factory.mktemp("operator")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("infra", "lambda_migrate", "localcloud", "migrate_cli", "migrate_review"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    uv = find_uv_bin()
    subprocess.run([uv, "build", "--quiet", "--wheel", "-o", folder, source], check=True)
    subprocess.run([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, folder / "env"], check=True)
    [wheel] = folder.glob("*.whl")
    python = folder / "env" / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, wheel], check=True)
    return folder / "env" / "bin" / "migrate"


def run(command: list[Any], folder: Path, stub: Stub | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "HOME": str(folder), **(stub.environment() if stub else {}), **more}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.stress
def test_the_wheel_works_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    assert run([installed, "--version"], tmp_path).stdout == f"migrate {__version__}\n"
    assert run([installed], tmp_path).stdout.startswith("Usage: migrate")

    with serve() as stub:
        done = run([installed, "upgrade", "--function", "my-function", "--yes", "--json"], tmp_path, stub)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["revision"] == "bbbb"

        no_stages = run([installed, "status", "--stage", "dev"], tmp_path, stub)
        assert no_stages.returncode == 2
        assert "--function NAME" in no_stages.stderr

        below = tmp_path / "infrastructure" / "deeper"
        below.mkdir(parents=True)
        project = {"prefix": "acme", "service": "shop", "stages": {"qa": {"database": {"secret": "x"}}}}
        (below.parent / "cdk.json").write_text(json.dumps({"context": {"project": project}}))
        assert run([installed, "status", "--stage", "qa"], below, stub).returncode == 0
        assert stub.functions == ["my-function", "acme-shop-migrate-lambda-qa"]

    review = run([installed, "review"], tmp_path)
    assert (review.returncode, "extra review" in review.stderr) == (2, True)


@pytest.mark.stress
def test_the_action_installs_and_runs_the_command(tmp_path: Path) -> None:
    install, migrate = ACTION["runs"]["steps"]
    source = tmp_path / "action-checkout"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "node_modules", "cdk.out", "__pycache__"))
    machine = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    common = {**machine, "RUNNER_TEMP": str(tmp_path), "SOURCE": str(source), "PYTHON": sys.executable}
    done = run(["bash", "-e", "-o", "pipefail", "-c", install["run"]], tmp_path, None, **common)
    assert done.returncode == 0, done.stderr

    with serve() as stub:
        done = run(
            ["bash", "-e", "-o", "pipefail", "-c", migrate["run"]],
            tmp_path,
            stub,
            **common,
            COMMAND="upgrade --wait --yes",
            STAGE="",
            FUNCTION="my-function",
            REGION="eu-central-1",
        )

    assert done.returncode == 0, done.stderr
    assert stub.functions == ["my-function"]
    assert stub.events[0] == {"action": "upgrade"}


@pytest.mark.stress
def test_the_container_file_makes_an_image_that_runs_the_command() -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no Docker engine here")
    image = f"test-migrate-{os.getpid()}"
    build = ["docker", "build", "-q", "-t", image, "-f", "action/Dockerfile", "."]
    try:
        done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        shown = subprocess.check_output(["docker", "run", "--rm", image, "--version"], text=True)
    finally:
        subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True, check=False)
    assert shown == f"migrate {__version__}\n"
