"""The policies of a stage's deployment allow what its stack needs, and nothing of another stage."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from infra.errors import StageError
from infra.execution_policy import (
    LONGEST_POLICY,
    ROOT,
    boundary_policy,
    check_stages_differ,
    deployment_policy,
    execution_policy,
    names_of_policies,
    policies,
)
from infra.names import Names
from infra.stages import Stage, read_project
from tests.infra.synthesis import ACCOUNT, REGION, Stack, as_list, resolved, synthesize

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("execution-policy")

QUALIFIER = "migratedev"
MINIMAL: dict[str, Any] = {
    "account": ACCOUNT,
    "region": REGION,
    "bootstrap_qualifier": QUALIFIER,
    "database": {"secret": "template-saas/api/dev/database"},
}
FULL: dict[str, Any] = {
    **MINIMAL,
    "network": {
        "vpc": "vpc-0123456789abcdef0",
        "subnets": ["subnet-0123456789abcdef0"],
        "database_security_group": "sg-0123456789abcdef0",
        "s3_prefix_list": "pl-0a",
    },
    "github": {"repository": "acme/app", "environment": "prod"},
    "invokers": [f"arn:aws:iam::{ACCOUNT}:role/ci"],
    "alarms": "team@example.com",
    "rollout": {"query": "SELECT 1", "secret_prefix": "tenants/"},
}
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
# Almost as many permissions as a stage can have. With a workflow's role, there are too many.
LARGEST: dict[str, Any] = {
    **FULL,
    "github": None,
    "database": {"secret": "x", "auth": "iam", "user": "u", "resource_id": "cluster-ABC", "kms_key": KEY},
    "network": {
        **FULL["network"],
        "subnets": ["ssm:/net/private#0", "ssm:/net/private#1"],
        "logs_endpoint": "sg-0123456789abcdef1",
    },
    "kms_key": KEY,
    "long_runs": {},
    "rollout": {
        "query": "SELECT 1",
        "secret_prefix": "tenants/",
        "kms_key": KEY,
        "users": ["migrator_*"],
        "resource_ids": ["cluster-DEF", "cluster-GHI"],
        "soak_s": 600,
        "soak_alarm": "slow",
    },
}
SETTINGS = {
    "dev": MINIMAL,
    "full": FULL,
    "migrating": {**MINIMAL, "migrate_on_deploy": True},
    "largest": LARGEST,
    "snapshots": {**LARGEST, "rollout": None, "snapshot": {"cluster": "app"}},
}
STAGES = {name: (Names("template-saas", "api", name), settings) for name, settings in SETTINGS.items()}
STAGE = pytest.mark.parametrize("name", list(SETTINGS))


def document(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A policy as IAM gets it."""
    return resolved(value, {})


def policy_of(stacks: Mapping[str, Stack], name: str) -> Any:  # noqa: ANN401 - JSON
    stage = Stage.model_validate(SETTINGS[name])
    return document(execution_policy(STAGES[name][0], stage, stacks[name].template))


def allows(policy: Any, action: str, resource: str, context: Mapping[str, str] | None = None) -> bool:  # noqa: ANN401
    """Whether a policy allows an action, as IAM decides it. A condition holds if the context has its values."""

    def matches(patterns: Any, text: str) -> bool:  # noqa: ANN401
        wild = (re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".") for pattern in as_list(patterns))
        return any(re.fullmatch(pattern, text, re.DOTALL) for pattern in wild)

    def holds(statement: Any) -> bool:  # noqa: ANN401
        conditions = [each for test in statement.get("Condition", {}).values() for each in test.items()]
        return all((context or {}).get(key) in as_list(values) for key, values in conditions)

    return any(
        matches(statement["Action"], action) and matches(statement["Resource"], resource) and holds(statement)
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow"
    )


def arn(service: str, resource: str, region: str = REGION) -> str:
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{resource}"


def changes(stage: str) -> dict[str, tuple[str, str]]:
    """Return the actions that deploying a stage needs, and the names of the stage's resources."""
    stack = f"template-saas-api-migrate-{stage}"
    function = f"template-saas-api-migrate-lambda-{stage}"
    return {
        "replace the function's code": ("lambda:UpdateFunctionCode", arn("lambda", f"function:{function}")),
        "let somebody invoke it": ("lambda:AddPermission", arn("lambda", f"function:{function}")),
        "delete it": ("lambda:DeleteFunction", arn("lambda", f"function:{function}")),
        "make its log group": ("logs:CreateLogGroup", arn("logs", f"log-group:/aws/lambda/{function}")),
        "delete its log": ("logs:DeleteLogGroup", arn("logs", f"log-group:/aws/lambda/{function}")),
        "change the state machine": ("states:UpdateStateMachine", arn("states", f"stateMachine:{stack}")),
        "silence an alarm": ("cloudwatch:PutMetricAlarm", arn("cloudwatch", f"alarm:{stack}-failed-run")),
        "change a role": ("iam:UpdateAssumeRolePolicy", arn("iam", f"role/{stack}-Role1ABC", "")),
        "delete a role": ("iam:DeleteRole", arn("iam", f"role/{stack}-Role1ABC", "")),
    }


@STAGE
def test_a_deployment_may_change_its_own_stage_and_no_other(stacks: dict[str, Stack], name: str) -> None:
    policy = policy_of(stacks, name)

    assert [what for what, change in changes(name).items() if not allows(policy, *change)] == []
    assert [what for what, change in changes("prod").items() if allows(policy, *change)] == []


def test_every_resource_of_a_stack_is_covered(stacks: dict[str, Stack]) -> None:
    policy = policy_of(stacks, "full")
    stack = "template-saas-api-migrate-full"
    needs = [
        ("s3:CreateBucket", f"arn:aws:s3:::{stack}-rollouts1951fc27-abc"),
        ("sns:CreateTopic", arn("sns", f"{stack}-alarms")),
        ("cloudwatch:PutDashboard", arn("cloudwatch", f"dashboard/{stack}", "")),
        ("logs:PutQueryDefinition", "*"),
        ("logs:CreateLogDelivery", "*"),
        ("ec2:CreateSecurityGroup", arn("ec2", "vpc/vpc-0123456789abcdef0")),
        ("ec2:CreateVpcEndpoint", arn("ec2", "vpc-endpoint/vpce-1")),
        ("lambda:CreateFunction", arn("lambda", f"function:{stack}-on-deploy")),
        ("ssm:GetParameters", arn("ssm", f"parameter/cdk-bootstrap/{QUALIFIER}/version")),
        ("s3:GetObject", f"arn:aws:s3:::cdk-{QUALIFIER}-assets-{ACCOUNT}-{REGION}/x.zip"),
    ]

    assert [need for need in needs if not allows(policy, *need)] == []
    assert not allows(policy, "ec2:CreateSecurityGroup", arn("ec2", "vpc/vpc-other"))
    assert not allows(policy, "s3:GetObject", f"arn:aws:s3:::cdk-hnb659fds-assets-{ACCOUNT}-{REGION}/x.zip")
    assert not allows(policy, "secretsmanager:GetSecretValue", arn("secretsmanager", "secret:x-AbCdEf"))


@STAGE
def test_a_deployment_cannot_make_a_role_that_may_more(stacks: dict[str, Stack], name: str) -> None:
    policy = policy_of(stacks, name)
    execution, boundary, deployment = names_of_policies(STAGES[name][0])
    role = arn("iam", f"role/template-saas-api-migrate-{name}-Role", "")
    bound = {"iam:PermissionsBoundary": arn("iam", f"policy/{boundary}", "")}

    for action in ("iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy"):
        assert allows(policy, action, role, bound)
        assert not allows(policy, action, role)
        assert not allows(
            policy, action, role, {"iam:PermissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess"}
        )
        assert not allows(policy, action, arn("iam", "role/admin", ""), bound)
    assert not allows(policy, "iam:DeleteRolePermissionsBoundary", role, bound)
    for own in (execution, boundary, deployment):
        assert not allows(policy, "iam:CreatePolicyVersion", arn("iam", f"policy/{own}", ""), bound)
    assert allows(policy, "iam:PassRole", role, {"iam:PassedToService": "lambda.amazonaws.com"})
    assert not allows(policy, "iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"})
    for action in ("iam:CreateUser", "iam:CreateAccessKey", "sts:AssumeRole", "organizations:LeaveOrganization"):
        assert not allows(policy, action, "*", bound)


@STAGE
def test_every_role_of_the_stack_has_the_boundary_and_keeps_what_it_needs(stacks: dict[str, Stack], name: str) -> None:
    stack, (names, _) = stacks[name], STAGES[name]
    boundary = document(boundary_policy(names, stack.template))

    for role in stack.all("AWS::IAM::Role"):
        assert f":policy/{names_of_policies(names)[1]}" in json.dumps(role["Properties"]["PermissionsBoundary"])
    bound = json.dumps(boundary)
    for statement in stack.statements:
        if statement["Effect"] == "Allow":
            assert all(json.dumps(action) in bound for action in as_list(statement["Action"])), statement
    assert "Ref" not in bound
    assert not allows(boundary, "iam:CreateUser", "*")
    assert not allows(
        boundary, "lambda:InvokeFunction", arn("lambda", "function:template-saas-api-migrate-lambda-prod")
    )
    function = arn("lambda", f"function:template-saas-api-migrate-lambda-{name}")
    assert allows(boundary, "lambda:InvokeFunction", function)


@STAGE
def test_iam_takes_the_policies(stacks: dict[str, Stack], name: str) -> None:
    template = policies(STAGES[name][0], Stage.model_validate(SETTINGS[name]), stacks[name].template)

    for resource in template["Resources"].values():
        text = json.dumps(document(resource["Properties"]["PolicyDocument"]), separators=(",", ":"))
        assert len(text) < LONGEST_POLICY
        for statement in document(resource["Properties"]["PolicyDocument"])["Statement"]:
            assert "*" not in as_list(statement["Action"])


def test_the_deploy_role_of_the_bootstrap_may_change_no_other_stack() -> None:
    """It could otherwise deploy any stack of the account with the role of that stack's own deployments."""
    template = ROOT / "node_modules" / "aws-cdk" / "lib" / "api" / "bootstrap" / "bootstrap-template.yaml"
    role = template.read_text(encoding="utf-8").partition("\n  DeploymentActionRole:")[2].partition("\n  CloudForm")[0]
    granted = set(re.findall(r"- (cloudformation:\w+)", role))
    changing = {each for each in granted if not re.match(r"cloudformation:(Describe|Get|List)", each)}
    (statement,) = document(deployment_policy(STAGES["dev"][0]))["Statement"]

    def denied(action: str, stack: str) -> bool:
        matched = any(re.fullmatch(each.replace("*", ".*"), action) for each in statement["Action"])
        other = not re.fullmatch(
            statement["NotResource"].replace("*", ".*"), arn("cloudformation", f"stack/{stack}/id")
        )
        return matched and other

    assert statement["Effect"] == "Deny"
    assert {"cloudformation:UpdateStack", "cloudformation:ExecuteChangeSet", "cloudformation:DeleteStack"} <= changing
    for action in changing:
        assert not denied(action, "template-saas-api-migrate-dev")
        for other in ("template-saas-api-migrate-prod", "template-saas-api-migrate-dev-2", "CDKToolkit", "shop"):
            assert denied(action, other)
    for action in granted - changing:
        assert not denied(action, "CDKToolkit")


LONGER = Names("template-saas", "subscriptions", "production")


def deployed(folder: Path, names: Names, settings: Mapping[str, Any]) -> Stack:
    return synthesize(folder, {"stack": (names, settings)})["stack"]


@pytest.mark.parametrize("names", [Names("a", "b", "c"), Names("template-saas", "api", "prod"), LONGER])
def test_a_deployment_may_make_every_resource_under_the_name_that_it_gets(tmp_path: Path, names: Names) -> None:
    """CloudFormation cuts the stack's name out of a generated name that is too long."""
    settings = {**FULL, "rollout": None, "migrate_on_deploy": True}
    stack = deployed(tmp_path, names, settings)
    policy = document(execution_policy(names, Stage.model_validate(settings), stack.template))
    bound = {"iam:PermissionsBoundary": arn("iam", f"policy/{names_of_policies(names)[1]}", "")}

    for logical_id in stack.names("AWS::IAM::Role"):
        name = physical_name(names.stack, logical_id, stack.resource(logical_id)["Properties"].get("RoleName"))
        assert len(name) <= 64
        assert allows(policy, "iam:CreateRole", arn("iam", f"role/{name}", ""), bound), name
    for logical_id in stack.names("AWS::Lambda::Function"):
        name = physical_name(names.stack, logical_id, stack.resource(logical_id)["Properties"].get("FunctionName"))
        assert len(name) <= 64
        assert allows(policy, "lambda:CreateFunction", arn("lambda", f"function:{name}")), name


def physical_name(stack: str, logical_id: str, given: str | None) -> str:
    """Return the name that CloudFormation generates: 12 random characters, and two halves of the remaining length."""
    random = "-abcdefghijkl"
    if given is not None or len(f"{stack}-{logical_id}{random}") <= 64:
        return given or f"{stack}-{logical_id}{random}"
    return f"{stack[:25]}-{logical_id[:25]}{random}"


def test_a_role_whose_name_is_not_cut_keeps_the_name_that_it_has(tmp_path: Path) -> None:
    stack = deployed(tmp_path, Names("template-saas", "api", "prod"), FULL)

    assert [each["Properties"].get("RoleName") for each in stack.all("AWS::IAM::Role")] == [None] * 3


@pytest.mark.parametrize(
    "names,more", [(LONGER, {}), (Names("p" * 20, "s" * 14, "t" * 12), {"rollout": None, "migrate_on_deploy": True})]
)
def test_a_stack_with_a_name_that_is_too_long_is_refused(tmp_path: Path, names: Names, more: dict[str, Any]) -> None:
    with pytest.raises(StageError, match=r"bootstrap_qualifier: .* or the stage's name by \d+$"):
        deployed(tmp_path, names, {**FULL, **more})


def test_policies_that_iam_would_refuse_are_refused(stacks: dict[str, Stack]) -> None:
    stage = Stage.model_validate(FULL)
    statements = [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{number:060}"} for number in range(100)
    ]
    policy = {"Type": "AWS::IAM::Policy", "Properties": {"PolicyDocument": {"Statement": statements}}}
    template = {"Resources": {**stacks["dev"].resources, "Policy": policy}}
    managed = {"Resources": {"Policy": {"Type": "AWS::IAM::ManagedPolicy", "Properties": {}}}}

    with pytest.raises(StageError, match=r"-boundary would have \d{4} characters, and IAM allows 6144"):
        policies(STAGES["dev"][0], stage, template)
    with pytest.raises(StageError, match="name the targets by secret_prefix"):
        policies(STAGES["dev"][0], stage, managed)


def test_an_unknown_kind_of_resource_is_refused_and_not_left_out(stacks: dict[str, Stack]) -> None:
    resources = {**stacks["dev"].resources, "Queue": {"Type": "AWS::SQS::Queue", "Properties": {}}}

    with pytest.raises(StageError, match="AWS::SQS::Queue"):
        execution_policy(STAGES["dev"][0], Stage.model_validate(MINIMAL), {"Resources": resources})


def test_stages_whose_names_a_policy_cannot_tell_apart_are_refused() -> None:
    project = read_project({"stages": {"dev": MINIMAL, "dev-2": MINIMAL, "prod": MINIMAL}})

    check_stages_differ(project, "prod")
    check_stages_differ(project, "dev-2")
    with pytest.raises(StageError, match="dev-2"):
        check_stages_differ(project, "dev")
    with pytest.raises(StageError, match="Dev-2"):
        check_stages_differ(read_project({"stages": {"dev": MINIMAL, "Dev-2": MINIMAL}}), "dev")
    # The functions of all stages begin like the stack of this one.
    with pytest.raises(StageError, match="prod"):
        check_stages_differ(read_project({"stages": {"lambda": MINIMAL, "prod": MINIMAL}}), "lambda")


def test_cloudformation_may_read_the_parameters_and_secrets_of_the_network() -> None:
    network = {
        "vpc": "ssm:/net/vpc",
        "subnets": ["ssm:/net/private#0", "ssm:/net/private#1"],
        "database_security_group": "ssm:/net/db",
        "database_port": "secret",
    }
    stage = Stage.model_validate({**MINIMAL, "network": network})
    resources = {"Group": {"Type": "AWS::EC2::SecurityGroup", "Properties": {}}}

    policy = document(execution_policy(STAGES["dev"][0], stage, {"Resources": resources}))

    for name in ("vpc", "private", "db"):
        assert allows(policy, "ssm:GetParameters", arn("ssm", f"parameter/net/{name}"))
    assert not allows(policy, "ssm:GetParameters", arn("ssm", "parameter/net/other"))
    secret = "secret:template-saas/api/dev/database-AbCdEf"
    assert allows(policy, "secretsmanager:GetSecretValue", arn("secretsmanager", secret))
    assert not allows(policy, "secretsmanager:GetSecretValue", arn("secretsmanager", "secret:other-AbCdEf"))
    assert allows(policy, "ec2:CreateSecurityGroup", arn("ec2", "vpc/vpc-0123456789abcdef0"))
