"""``packaging: image``: the same package as a container image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import aws_cdk as cdk
import pytest

from infra.names import Names
from infra.package import IMAGE, Selection, Target, build
from infra.stack import HANDLER, MigrateStack
from infra.stages import Stage

ROOT = Path(__file__).resolve().parents[2]
STAGE = {"database": {"secret": "x"}, "packaging": "image", "runtime": "python3.13", "architecture": "arm64"}


@pytest.mark.xdist_group("stack")
def test_the_function_is_an_image_of_the_package_for_its_runtime_and_processor(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    shutil.copy(IMAGE, package)
    app = cdk.App(outdir=str(tmp_path / "cdk.out"))
    names = Names("acme", "shop", "dev")
    stage = Stage.model_validate(STAGE)
    MigrateStack(app, names.stack, names=names, stage=stage, package=package, asset_hash="0" * 64)

    assembly = Path(app.synth().directory)

    resources = json.loads((assembly / f"{names.stack}.template.json").read_text())["Resources"]
    [function] = [one["Properties"] for one in resources.values() if one["Type"] == "AWS::Lambda::Function"]
    assert (function["PackageType"], function["Architectures"]) == ("Image", ["arm64"])
    assert not {"Runtime", "Handler"} & function.keys()
    [image] = json.loads((assembly / f"{names.stack}.assets.json").read_text())["dockerImages"].values()
    assert image["source"]["dockerBuildArgs"] == {"PYTHON": "3.13"}
    assert image["source"]["platform"] == "linux/arm64"
    assert (assembly / image["source"]["directory"] / "Dockerfile").read_bytes() == IMAGE.read_bytes()


def test_the_dockerfile_puts_the_package_where_lambda_looks_and_names_the_handler() -> None:
    lines = [line for line in IMAGE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert lines == [
        "ARG PYTHON",
        "FROM amazon/aws-lambda-python:${PYTHON}",
        "COPY . ${LAMBDA_TASK_ROOT}/",
        f"CMD {json.dumps([HANDLER])}",
    ]


def no_docker() -> str:
    """Why no image can be built here; empty if one can."""
    if not shutil.which("docker"):
        return "there is no docker command here"
    done = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else "there is a docker command here and no Docker engine"


def test_the_image_can_be_built_and_imports_the_handler(tmp_path: Path) -> None:
    if reason := no_docker():
        pytest.skip(reason)
    python = f"3.{max(sys.version_info.minor, 12)}"
    target = Target(python, "x86_64")
    package = build(
        ROOT / "back", tmp_path / "out", target, extra_files={"Dockerfile": IMAGE}, selection=Selection(limited=False)
    )
    command = ["docker", "build", "--quiet", "--platform", "linux/amd64", "--build-arg", f"PYTHON={python}"]
    built = subprocess.run([*command, str(package.directory)], capture_output=True, text=True, check=True)
    image = built.stdout.strip()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image)
    try:
        code = "import lambda_migrate.handler, alembic, sqlalchemy; print('ok')"
        run = ["docker", "run", "--rm", "--platform", "linux/amd64", "--entrypoint", "python", image, "-c", code]
        assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "ok\n"
    finally:
        subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True, check=False)
