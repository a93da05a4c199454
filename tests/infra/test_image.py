"""``packaging: image``: the same package as a container image."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import aws_cdk as cdk
import boto3
import pytest
from aws_cdk.assertions import Template
from moto import mock_aws

from infra.code import HANDLER
from infra.deployed import refuse_another_packaging
from infra.errors import StageError
from infra.names import Names
from infra.package.builder import IMAGE, build
from infra.package.package_platform import Platform
from infra.package.selection import Selection
from infra.stack import MigrateStack
from infra.stages import Stage
from tests.infra.synthesis import ACCOUNT, REGION, Stack, add_stack, new_app

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
NAMES = Names("acme", "shop", "dev")
STAGE = {"database": {"secret": "x"}, "packaging": "image", "runtime": "python3.13", "architecture": "arm64"}


@pytest.mark.xdist_group("stack")
def test_the_function_is_an_image_of_the_package_for_its_runtime_and_processor(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    shutil.copy(IMAGE, package)
    app = cdk.App(outdir=str(tmp_path / "cdk.out"))
    names = NAMES
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


# --- a stage that was deployed in the other way ---


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An AWS account in which the stage is deployed as an archive. The variables are those of the CDK's command."""
    for name, value in (("ACCESS_KEY_ID", "testing"), ("SECRET_ACCESS_KEY", "testing")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("CDK_DEFAULT_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("CDK_DEFAULT_REGION", REGION)
    monkeypatch.setenv("MOTO_ACCOUNT_ID", ACCOUNT)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with mock_aws():
        trust = json.dumps({"Version": "2012-10-17", "Statement": []})
        role = boto3.client("iam").create_role(RoleName="function", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("code.py", "")
        boto3.client("lambda", region_name=REGION).create_function(
            FunctionName=NAMES.function,
            Runtime="python3.13",
            Role=role,
            Handler=HANDLER,
            Code={"ZipFile": archive.getvalue()},
        )
        yield ACCOUNT


@pytest.mark.usefixtures("account")
def test_an_archive_that_is_deployed_is_not_made_an_image_in_one_step() -> None:
    refuse_another_packaging(NAMES, "zip")

    with pytest.raises(StageError) as caught:
        refuse_another_packaging(NAMES, "image")

    message = str(caught.value)
    assert message.startswith("cdk.json: project.stages.dev.packaging: acme-shop-migrate-lambda-dev is deployed as zip")
    assert "-c aside=true" in message
    assert message.splitlines() == [message]


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("name,value", [("ACCOUNT", "210987654321"), ("ACCOUNT", ""), ("REGION", "us-east-1")])
def test_a_function_deployed_elsewhere_or_invisible_does_not_stop_the_synthesis(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"CDK_DEFAULT_{name}", value)

    refuse_another_packaging(NAMES, "image")


def test_a_function_that_is_moved_aside_keeps_its_log_and_all_other_names() -> None:
    for name in ("log_group", "stack", "state_machine", "dashboard"):
        assert getattr(NAMES, name) == getattr(NAMES.moved_aside, name)
    assert NAMES.moved_aside.function == "acme-shop-migrate-lambda-dev-aside"


@pytest.mark.xdist_group("stack")
def test_the_function_that_is_moved_aside_is_the_one_that_is_invoked(tmp_path: Path) -> None:
    made = add_stack(new_app(tmp_path), tmp_path, NAMES.moved_aside, {**STAGE, "packaging": "zip"})
    stack = Stack(dict(Template.from_stack(made).to_json()))

    assert stack.function["FunctionName"] == "acme-shop-migrate-lambda-dev-aside"
    assert stack.log_group["Properties"]["LogGroupName"] == "/aws/lambda/acme-shop-migrate-lambda-dev"


def test_the_dockerfile_puts_the_package_where_lambda_looks_and_names_the_handler() -> None:
    lines = [line for line in IMAGE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert lines == [
        "ARG BASE=public.ecr.aws/lambda/python",
        "ARG PYTHON",
        "FROM ${BASE}:${PYTHON}",
        "COPY . ${LAMBDA_TASK_ROOT}/",
        f"CMD {json.dumps([HANDLER])}",
    ]


def no_docker() -> str:
    """Return the reason why this machine cannot build an image; empty if it can."""
    if not shutil.which("docker"):
        return "there is no docker command here"
    done = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else "there is a docker command here and no Docker engine"


def base(python: str) -> list[str]:
    """Return Docker Hub's name of the base image if this machine has it already."""
    name = "amazon/aws-lambda-python"
    done = subprocess.run(["docker", "image", "inspect", f"{name}:{python}"], capture_output=True, check=False)
    return ["--build-arg", f"BASE={name}"] if done.returncode == 0 else []


def test_the_image_can_be_built_and_imports_the_handler(tmp_path: Path) -> None:
    if reason := no_docker():
        pytest.skip(reason)
    python = f"3.{max(sys.version_info.minor, 12)}"
    platform = Platform(python, "x86_64")
    package = build(
        ROOT / "back", tmp_path / "out", platform, extra_files={"Dockerfile": IMAGE}, selection=Selection(limited=False)
    )
    command = [
        "docker",
        "build",
        "--quiet",
        "--platform",
        "linux/amd64",
        "--build-arg",
        f"PYTHON={python}",
        *base(python),
    ]
    built = subprocess.run([*command, str(package.directory)], capture_output=True, text=True, check=True)
    image = built.stdout.strip()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image)
    try:
        # The function's own libraries, and then those of env.py's process, which has a folder of its own.
        code = (
            "import sys, lambda_migrate.handler; sys.path.insert(0, str(lambda_migrate.BACKEND_LIBRARIES));"
            " import alembic, sqlalchemy; print('ok')"
        )
        run = ["docker", "run", "--rm", "--platform", "linux/amd64", "--entrypoint", "python", image, "-c", code]
        assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "ok\n"
    finally:
        subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True, check=False)
