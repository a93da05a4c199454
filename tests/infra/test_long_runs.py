"""`long_runs`: the CodeBuild project, its network, and the permission to start it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Annotations
from pydantic import ValidationError

from infra.execution_policy import boundary_policy, execution_policy
from infra.names import Names
from infra.stages import Stage
from tests.infra.synthesis import ACCOUNT, REGION, Stack, add_stack, as_list, new_app, resolved

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = f"arn:aws:codebuild:{REGION}:{ACCOUNT}:project/template-saas-api-migrate-"
NETWORK = {
    "vpc": "vpc-0123456789abcdef0",
    "subnets": ["subnet-0123456789abcdef0"],
    "database_security_group": "sg-0123456789abcdef0",
}
# One synthesis, in one worker.
pytestmark = pytest.mark.xdist_group("long-runs-template")

BASE: dict[str, Any] = {"account": ACCOUNT, "region": REGION, "database": {"secret": "x"}, "long_runs": {"hours": 12}}
STAGES: dict[str, tuple[Names, dict[str, Any]]] = {
    name: (Names("template-saas", "api", name), settings)
    for name, settings in {
        "dev": {
            **BASE,
            "environment": {"LOCK_TIMEOUT_MS": "2000"},
            "github": {"repository": "a/b", "environment": "c"},
        },
        "intel": {**BASE, "architecture": "x86_64", "runtime": "python3.14", "long_runs": {"compute": "large"}},
        "image": {**BASE, "packaging": "image"},
        "nat": {**BASE, "network": {**NETWORK, "secrets_endpoint": "nat"}},
        "endpoints": {
            **BASE,
            "network": {**NETWORK, "s3_prefix_list": "pl-6da54004", "logs_endpoint": "sg-0aaa456789abcdef0"},
        },
        "fleet": {**BASE, "rollout": {"secret_prefix": "tenants/"}},
        "without": {"database": {"secret": "x"}},
    }.items()
}
WITH = [name for name in STAGES if name != "without"]


def project(stack: Stack) -> Any:  # noqa: ANN401 - JSON
    return stack.properties("AWS::CodeBuild::Project")


def machine(stack: Stack) -> Any:  # noqa: ANN401 - JSON
    """The state machine's states, with anything that CloudFormation fills in as an x."""
    parts = stack.machine["DefinitionString"]["Fn::Join"][1]
    definition = json.loads("".join(part if isinstance(part, str) else "x" for part in parts))
    states = dict(definition["States"])
    for state in definition["States"].values():
        states |= state.get("ItemProcessor", {}).get("States", {})
    return states


def statements(stack: Stack, role: str, service: str) -> list[dict[str, Any]]:
    [name] = [each for each in stack.names("AWS::IAM::Role") if each.startswith(role)]
    return [each for each in stack.statements_of(name) if as_list(each["Action"])[0].startswith(service)]


def test_a_stage_has_no_project_unless_it_asks_for_one(stacks: dict[str, Stack]) -> None:
    assert not stacks["without"].all("AWS::CodeBuild::Project")
    assert "codebuild" not in stacks["without"].text


@pytest.mark.parametrize("stage", WITH)
def test_it_runs_the_functions_package_with_its_role_variables_and_log(stacks: dict[str, Stack], stage: str) -> None:
    stack = stacks[stage]
    made = project(stack)

    assert made["ServiceRole"] == {"Fn::GetAtt": [stack.function["Role"]["Fn::GetAtt"][0], "Arn"]}
    given = {each["Name"]: each["Value"] for each in made["Environment"]["EnvironmentVariables"]}
    assert given.items() >= stack.variables.items()
    assert given["LONG_RUN_FUNCTION"] == f"template-saas-api-migrate-lambda-{stage}"
    assert int(given["LONG_RUN_TIMEOUT_S"]) < made["TimeoutInMinutes"] * 60
    assert made["LogsConfig"]["CloudWatchLogs"]["GroupName"] == {"Ref": stack.log_group_name}
    if "S3Key" in stack.function["Code"]:
        code = stack.function["Code"]
        assert made["Source"]["Location"] == f"{code['S3Bucket']}/{code['S3Key']}"
    assert made["Source"]["Location"].endswith(".zip")


@pytest.mark.parametrize(
    "stage,kind,image,python,compute",
    [
        ("dev", "ARM_CONTAINER", "aws/codebuild/amazonlinux-aarch64-standard:3.0", "3.13", "SMALL"),
        ("intel", "LINUX_CONTAINER", "aws/codebuild/amazonlinux-x86_64-standard:5.0", "3.14", "LARGE"),
    ],
)
def test_it_has_the_processor_and_the_python_that_the_package_was_built_for(
    stacks: dict[str, Stack], stage: str, kind: str, image: str, python: str, compute: str
) -> None:
    environment = project(stacks[stage])["Environment"]

    assert (environment["Type"], environment["Image"]) == (kind, image)
    assert environment["ComputeType"] == f"BUILD_GENERAL1_{compute}"
    spec = json.loads(project(stacks[stage])["Source"]["BuildSpec"])
    assert spec["phases"]["install"]["runtime-versions"] == {"python": python}


@pytest.mark.parametrize("stage", ["nat", "endpoints"])
def test_in_a_vpc_it_is_where_the_function_is(stacks: dict[str, Stack], stage: str) -> None:
    vpc = project(stacks[stage])["VpcConfig"]
    function = stacks[stage].function["VpcConfig"]

    assert (vpc["Subnets"], vpc["SecurityGroupIds"]) == (function["SubnetIds"], function["SecurityGroupIds"])
    assert vpc["VpcId"] == NETWORK["vpc"]


def test_without_a_nat_gateway_it_is_let_out_to_s3_and_to_the_endpoint_of_the_log(stacks: dict[str, Stack]) -> None:
    [own] = [
        each["Properties"]
        for each in stacks["endpoints"].all("AWS::EC2::SecurityGroup")
        if "The migration function" in each["Properties"]["GroupDescription"]
    ]
    apart = [each["Properties"] for each in stacks["endpoints"].all("AWS::EC2::SecurityGroupEgress")]
    let_out = [*own.get("SecurityGroupEgress", []), *apart]

    assert [each for each in let_out if each.get("DestinationPrefixListId") == "pl-6da54004"]
    assert [each for each in let_out if each.get("DestinationSecurityGroupId") == "sg-0aaa456789abcdef0"]


@pytest.mark.parametrize(
    "network", [NETWORK, {**NETWORK, "s3_prefix_list": "pl-1"}, {**NETWORK, "logs_endpoint": "sg-1"}]
)
def test_a_vpc_that_it_could_not_work_in_is_refused(network: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"set network.secrets_endpoint to nat, or both network.s3_prefix_list"):
        Stage.model_validate({**BASE, "network": network})


def test_a_migration_in_the_deployment_and_one_of_hours_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="migrate_on_deploy ends after 15 minutes"):
        Stage.model_validate({**BASE, "migrate_on_deploy": True})


@pytest.mark.parametrize("hours", [0, 36])
def test_its_hours_are_those_that_codebuild_has(hours: int) -> None:
    with pytest.raises(ValidationError):
        Stage.model_validate({**BASE, "long_runs": {"hours": hours}})


@pytest.mark.parametrize("region,warned", [("eu-central-1", False), ("eu-north-1", True), ("cn-north-1", True)])
def test_a_region_that_may_have_no_arm_is_warned_of(tmp_path: Path, region: str, warned: bool) -> None:  # noqa: FBT001
    settings = {**BASE, "region": region, "database": {"secret": "x", "ca_bundle": "ca.pem"}}

    stack = add_stack(new_app(tmp_path), tmp_path, Names("template-saas", "api", "x"), settings)

    found = Annotations.from_stack(stack).find_warning("*", cdk.assertions.Match.string_like_regexp("long_runs"))
    assert bool(found) == warned


def test_codebuild_may_take_the_role_for_this_project_only(stacks: dict[str, Stack]) -> None:
    _, trust = stacks["dev"].role["Properties"]["AssumeRolePolicyDocument"]["Statement"]

    assert trust["Principal"] == {"Service": "codebuild.amazonaws.com"}
    assert resolved(trust["Condition"], {}) == {"StringEquals": {"aws:SourceArn": f"{PROJECT}dev"}}


def test_the_role_may_read_its_own_package_and_no_other(stacks: dict[str, Stack]) -> None:
    read, _ = statements(stacks["dev"], "Role", "s3:")

    assert read["Action"] == ["s3:GetObject", "s3:GetObjectVersion"]
    assert read["Resource"] == f"arn:aws:s3:::{project(stacks['dev'])['Source']['Location']}"


def test_in_a_vpc_only_codebuild_may_use_the_interface_and_only_in_these_subnets(stacks: dict[str, Stack]) -> None:
    permission = [
        each
        for each in statements(stacks["nat"], "Role", "ec2:")
        if each["Action"] == "ec2:CreateNetworkInterfacePermission"
    ]

    assert [each["Condition"] for each in permission] == [
        {
            "StringEquals": {"ec2:AuthorizedService": "codebuild.amazonaws.com"},
            "ArnEquals": {"ec2:Subnet": [f"arn:aws:ec2:{REGION}:{ACCOUNT}:subnet/{NETWORK['subnets'][0]}"]},
        }
    ]


@pytest.mark.parametrize(
    "role,actions",
    [("MachineRole", {"StartBuild", "StopBuild", "BatchGetBuilds"}), ("GithubRole", {"StartBuild", "BatchGetBuilds"})],
)
def test_the_state_machine_and_the_workflow_may_start_it(
    stacks: dict[str, Stack], role: str, actions: set[str]
) -> None:
    [statement] = statements(stacks["dev"], role, "codebuild:")

    assert set(statement["Action"]) == {f"codebuild:{each}" for each in actions}
    assert resolved(statement["Resource"], {}) == f"{PROJECT}dev"


@pytest.mark.parametrize("stage", ["dev", "fleet"])
def test_the_machine_hands_over_when_a_revision_made_no_progress_twice(stacks: dict[str, Stack], stage: str) -> None:
    states = machine(stacks[stage])

    no_progress = states["Did it come further?"]["Choices"][0]
    assert no_progress["Variable"] == "$.cause.errorMessage"
    run = states[states[no_progress["Next"]]["Next"]]
    assert run["Resource"].endswith(":states:::codebuild:startBuild.sync")
    # Longer than the build and its time in the queue.
    made = project(stacks[stage])
    assert run["TimeoutSeconds"] > 60 * (made["TimeoutInMinutes"] + made["QueuedTimeoutInMinutes"])
    event = states[no_progress["Next"]]["Parameters"]["event"]
    # A target keeps its part of the rollout: whether that is halted, the room on its server, and its revision.
    assert ("target.$" in event) == ("rollout" in event) == (stage == "fleet")
    assert states["Go on after the long run"]["Next"] == "Migrate"


def test_the_error_on_a_machine_without_it_names_its_installation(stacks: dict[str, Stack]) -> None:
    states = machine(stacks["without"])

    last = states["Did it come further?"]["Choices"][0]["Next"]
    assert "set `long_runs`" in states[last]["Parameters"]["error"]["Cause.$"]


def test_the_execution_policy_covers_it_and_the_boundary_the_next_package_too(stacks: dict[str, Stack]) -> None:
    names, settings = STAGES["nat"]
    template = {"Resources": stacks["nat"].resources}

    execution = execution_policy(names, Stage.model_validate(settings), template)
    boundary = boundary_policy(names, template)

    [build] = [each for each in execution["Statement"] if each["Action"] == ["codebuild:*"]]
    assert resolved(build["Resource"], {}) == [f"{PROJECT}nat"]
    [hand] = [each for each in execution["Statement"] if each["Action"] == ["iam:PassRole"]]
    assert "codebuild.amazonaws.com" in hand["Condition"]["StringEquals"]["iam:PassedToService"]
    [read] = [each for each in boundary["Statement"] if "s3:GetObjectVersion" in as_list(each["Action"])]
    assert resolved(read["Resource"], {})[0] == f"arn:aws:s3:::cdk-hnb659fds-assets-{ACCOUNT}-{REGION}/*"
