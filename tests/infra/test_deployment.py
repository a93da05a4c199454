"""``migrate_on_deploy``: the invocation, its time and its permissions."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest

from infra.names import Names
from lambda_migrate.handler import _contract_error
from lambda_migrate.invocation.errors import MigrationFailed
from tests.infra.synthesis import ACCOUNT, REGION, Stack
from tests.support.checkout import with_tools
from tests.support.samples import sampled

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.xdist_group("deployment")

NETWORK = {
    "vpc": "vpc-0123456789abcdef0",
    "subnets": ["subnet-0123456789abcdef0"],
    "database_security_group": "sg-0123456789abcdef0",
}
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
TRIGGER = "Custom::Trigger"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
STAGES: dict[str, tuple[Names, Mapping[str, Any]]] = {
    "migrating": (
        Names("template-saas", "api", "dev"),
        {
            "account": ACCOUNT,
            "region": REGION,
            "database": {"secret": "x"},
            "network": NETWORK,
            "timeout_s": 600,
            "migrate_on_deploy": True,
        },
    ),
    "strict": (
        Names("template-saas", "api", "strict"),
        {
            "database": {"secret": "x"},
            "migrate_on_deploy": True,
            "environment": {"NEWER_DATABASE": "error", "DEADLINE_RESERVE_MS": "90000"},
        },
    ),
    "longest": (
        Names("template-saas", "api", "longest"),
        {
            "database": {"secret": "x"},
            "migrate_on_deploy": True,
            "log_retention_days": 30,
            "kms_key": KEY,
            "permissions_boundary": BOUNDARY,
            "github": {"repository": "acme/app", "environment": "e"},
        },
    ),
    "plain": (Names("template-saas", "api", "plain"), {"database": {"secret": "x"}}),
}


@pytest.fixture(scope="module")
def migrating(stacks: dict[str, Stack]) -> Stack:
    return stacks["migrating"]


def test_a_deployment_migrates_only_where_the_stage_says_so(stacks: dict[str, Stack]) -> None:
    assert [len(stacks[stage].all(TRIGGER)) for stage in ("migrating", "plain")] == [1, 0]
    assert "NEWER_DATABASE" not in stacks["plain"].variables


def test_it_invokes_the_version_that_was_just_deployed_and_waits_for_its_answer(migrating: Stack) -> None:
    (version,) = migrating.names("AWS::Lambda::Version")
    called = migrating.properties(TRIGGER)

    # The version's id holds a digest of code and settings: both changed, it is another, and the trigger runs.
    assert called["HandlerArn"] == {"Ref": version}
    assert called["InvocationType"] == "RequestResponse"
    assert called["Timeout"] == "600000"


def test_it_answers_before_the_invoker_gives_up(stacks: dict[str, Stack]) -> None:
    # Lambda gives what invokes the function 900 s, too; the function itself keeps back 10 s without this.
    assert "DEADLINE_RESERVE_MS" not in stacks["migrating"].variables
    assert stacks["longest"].variables["DEADLINE_RESERVE_MS"] == "70000"
    assert stacks["strict"].variables["DEADLINE_RESERVE_MS"] == "90000"


def test_cloudformation_does_not_wait_for_an_hour_if_no_answer_comes(migrating: Stack) -> None:
    assert migrating.properties(TRIGGER)["ServiceTimeout"] == "960"


def test_the_invokers_log_has_the_stages_retention_and_key(stacks: dict[str, Stack]) -> None:
    stack = stacks["longest"]
    (invoker,) = [name for name in stack.names("AWS::Lambda::Function") if "CustomResourceProvider" in name]
    group = stack.resource(stack.resource(invoker)["Properties"]["LoggingConfig"]["LogGroup"]["Ref"])

    assert group["Type"] == "AWS::Logs::LogGroup"
    assert (group["Properties"]["RetentionInDays"], group["Properties"]["KmsKeyId"]) == (30, KEY)


def test_what_invokes_the_function_is_tagged_like_the_rest(migrating: Stack) -> None:
    """A stack's own tags reach every resource, but `Migrations` may be in a stack of somebody else."""
    tags = [{"Key": "project", "Value": "template-saas"}, {"Key": "stage", "Value": "dev"}]

    for kind in ("AWS::Lambda::Function", "AWS::IAM::Role"):
        assert [each["Properties"]["Tags"] for each in migrating.all(kind)] == [tags] * len(migrating.all(kind))


def test_every_role_has_the_permissions_boundary(stacks: dict[str, Stack]) -> None:
    roles = [each["Properties"] for each in stacks["longest"].all("AWS::IAM::Role")]

    # The function's, the machine's, GitHub's, and that of what invokes the function.
    assert [each["PermissionsBoundary"] for each in roles] == [BOUNDARY] * 4
    assert all("PermissionsBoundary" not in each["Properties"] for each in stacks["plain"].all("AWS::IAM::Role"))


def test_it_comes_last_so_that_the_database_can_be_reached(migrating: Stack) -> None:
    waits_for = set(migrating.one(TRIGGER)["DependsOn"])

    own = {name for name in migrating.resources if "TriggerCustomResourceProvider" not in name}
    needed = own - set(migrating.names(TRIGGER))
    assert needed <= waits_for
    assert migrating.names("AWS::EC2::SecurityGroupIngress")


def test_the_old_version_ignores_the_new_versions_revisions_after_a_rollback(
    stacks: dict[str, Stack],
) -> None:
    assert stacks["migrating"].variables["NEWER_DATABASE"] == "ok"
    assert stacks["strict"].variables["NEWER_DATABASE"] == "error"
    assert "NEWER_DATABASE" not in stacks["plain"].variables


def test_the_invoker_has_no_other_permission(migrating: Stack) -> None:
    (role,) = [name for name in migrating.names("AWS::IAM::Role") if "TriggerCustomResourceProvider" in name]
    (policy,) = migrating.resource(role)["Properties"]["Policies"]
    (statement,) = policy["PolicyDocument"]["Statement"]
    function = migrating.function_name

    assert statement["Action"] == ["lambda:InvokeFunction"]
    assert statement["Resource"] == [{"Fn::Join": ["", [{"Fn::GetAtt": [function, "Arn"]}, ":*"]]}]


# The CDK's own code, which answers CloudFormation. It gets the error of the function, and a way to send.
ANSWERING = """
const entry = require("./entry");
entry.external.userHandlerIndex = "./trigger";
entry.external.log = () => {};
entry.external.sendHttpRequest = async (_, body) => { process.stdout.write(body); };
entry.handler({
  RequestType: "Create", ResponseURL: "https://cloudformation.example/answer",
  RequestId: "11111111-2222-3333-4444-555555555555", LogicalResourceId: "MigrateOnDeployCDB7B3B5",
  StackId: "arn:aws-us-gov:cloudformation:us-gov-west-1:123456789012:stack/" + "s".repeat(57) + "/" + "1".repeat(36),
}, {});
"""


@pytest.mark.parametrize("message", sampled(["x", "\u30c6\u30fc\u30d6\u30eb", '"'], {"\u30c6\u30fc\u30d6\u30eb"}))
def test_cloudformation_takes_the_message_of_every_failed_migration(tmp_path: Path, message: str) -> None:
    """CloudFormation refuses an answer of more than 4,096 bytes, and the reason would be lost."""
    (archive,) = Path(cdk.__file__).parent.glob("_jsii/aws-cdk-lib@*.tgz")
    with tarfile.open(archive) as library:
        file = library.extractfile("package/custom-resource-handlers/dist/core/nodejs-entrypoint-handler/index.js")
        assert file is not None
        (tmp_path / "entry.js").write_bytes(file.read())
    error = _contract_error(MigrationFailed(message * 2500))
    thrown = f"exports.handler = async () => {{ throw new Error({json.dumps(str(error))}); }};"
    (tmp_path / "trigger.js").write_text(thrown, encoding="utf-8")

    answer = subprocess.run(
        ["node", "-e", ANSWERING], cwd=tmp_path, env=with_tools(dict(os.environ)), capture_output=True, check=True
    ).stdout

    assert json.loads(answer)["Reason"].startswith(f"Error: {message * 150}")
    assert len(answer) <= 4096


def test_a_message_with_half_a_character_is_an_error_of_the_contract() -> None:
    assert str(_contract_error(MigrationFailed("the column \udcff"))) == "the column \udcff"
