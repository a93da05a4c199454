"""The permissions of the function and its invokers: in the template, and as IAM decides."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count
from moto.iam.access_control import IAMPolicyStatement
from moto.secretsmanager.responses import SecretsManagerResponse

from infra.errors import StageError
from infra.names import Names
from lambda_migrate.database.credential_store import read_secret
from lambda_migrate.invocation import aws
from lambda_migrate.invocation.errors import SecretUnavailable
from tests.infra.synthesis import ACCOUNT, REGION, Stack, add_stack, as_list, new_app, resolved
from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("permissions")

OWN = "template-saas/api/dev/database"
ARN = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:rds!db-1-AbCdEf"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
FOREIGN = f"arn:aws:secretsmanager:{REGION}:210987654321:secret:shared/database-AbCdEf"
FOREIGN_KEY = f"arn:aws:kms:{REGION}:210987654321:key/11111111-2222-3333-4444-555555555555"
NETWORK = {
    "vpc": "vpc-0123456789abcdef0",
    "subnets": ["subnet-0123456789abcdef0"],
    "database_security_group": "sg-0123456789abcdef0",
}
ROLES = [f"arn:aws:iam::{ACCOUNT}:role/ci", "arn:aws:iam::210987654321:role/path/other"]

# What tracing needs: X-Ray's actions know no resource.
TRACING = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
MACHINES_TRACING = TRACING | {"xray:GetSamplingRules", "xray:GetSamplingTargets"}
# And what a state machine's log needs: a delivery has no name, and log groups are named by a policy of their own.
LOG_DELIVERY = {
    *(f"logs:{what}LogDelivery" for what in ("Create", "Get", "Update", "Delete")),
    *("logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:DescribeResourcePolicies", "logs:DescribeLogGroups"),
}

MINIMAL: dict[str, Any] = {"database": {"secret": OWN}}
STAGES: dict[str, tuple[Names, dict[str, Any]]] = {
    "dev": (Names("template-saas", "api", "dev"), MINIMAL),
    "neighbour": (
        Names("template-saas", "api", "qa"),
        {
            **MINIMAL,
            "github": {
                "repository": "acme/app",
                "environment": "production",
                "owner_id": 123456,
                "repository_id": 456789,
            },
        },
    ),
    "full": (
        Names("template-saas", "api", "full"),
        {
            "account": ACCOUNT,
            "region": REGION,
            "database": {
                "secret": ARN,
                "kms_key": KEY,
                "auth": "iam",
                "user": "migrator",
                "resource_id": "cluster-ABC",
            },
            "network": NETWORK,
            "invokers": ROLES,
            "github": {"repository": "acme/app", "environment": "production"},
        },
    ),
    **{
        begin: (
            Names("template-saas", "api", begin),
            {
                "account": ACCOUNT,
                "region": region,
                "database": {
                    "secret": "x",
                    "ca_bundle": "ca.pem",
                    "kms_key": f"arn:aws-{begin}:kms:{region}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555",
                },
            },
        )
        for begin, region in (("cn", "cn-north-1"), ("eusc", "eusc-de-east-1"), ("iso-b", "us-isob-east-1"))
    },
    "foreign": (
        Names("template-saas", "api", "prod"),
        {"account": ACCOUNT, "region": REGION, "database": {"secret": FOREIGN, "kms_key": FOREIGN_KEY}},
    ),
    "iam": (
        Names("template-saas", "api", "iam"),
        {
            "account": ACCOUNT,
            "region": REGION,
            "database": {"auth": "iam", "host": "db", "name": "app", "user": "migrator", "resource_id": "cluster-ABC"},
            "rollout": {
                "targets": [{"secret_id": "tenants/a"}],
                "resource_ids": ["cluster-DEF", "prx-GHI"],
                "users": ["tenant_*"],
            },
            "github": {"repository": "acme/app", "environment": "production"},
            "kms_key": KEY,
        },
    ),
}


@pytest.fixture(scope="module")
def full(stacks: dict[str, Stack]) -> Stack:
    return stacks["full"]


def function_policy(stack: Stack) -> list[dict[str, Any]]:
    """The statements of the role that the function runs as."""
    role = stack.function["Role"]["Fn::GetAtt"][0]
    return stack.statements_of(role)


def granting(statements: list[dict[str, Any]], action: str) -> list[dict[str, Any]]:
    return [each for each in statements if each["Effect"] == "Allow" and action in as_list(each["Action"])]


# --- the function's policy, as it is written ---


def test_a_minimal_stage_may_read_its_secret_write_its_log_be_traced_and_nothing_else(dev: Stack) -> None:
    actions = {action for statement in function_policy(dev) for action in as_list(statement["Action"])}

    assert actions - TRACING == {"secretsmanager:GetSecretValue", "logs:CreateLogStream", "logs:PutLogEvents"}


@pytest.mark.parametrize("stage", STAGES)
def test_only_actions_without_resources_are_allowed_for_all(stacks: dict[str, Stack], stage: str) -> None:
    for statement in stacks[stage].statements:
        assert not any("*" in action for action in as_list(statement["Action"]))
        assert not {"NotAction", "NotResource"} & statement.keys()
        if "*" in as_list(statement["Resource"]):
            assert statement.get("Sid") in {"BePlacedInTheVpc", "ButOnlyByLambdaItself", "ListSecrets"} or (
                set(statement["Action"]) in (TRACING, MACHINES_TRACING, LOG_DELIVERY)
            )


def test_a_secret_by_arn_is_the_only_one_that_may_be_read(full: Stack) -> None:
    (statement,) = granting(function_policy(full), "secretsmanager:GetSecretValue")

    assert statement["Resource"] == ARN


def test_the_secrets_key_may_be_used_through_secrets_manager_for_that_secret_only(full: Stack) -> None:
    (statement,) = granting(function_policy(full), "kms:Decrypt")

    assert (statement["Action"], statement["Resource"]) == ("kms:Decrypt", KEY)
    assert statement["Condition"] == {
        "StringEquals": {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"},
        "StringLike": {"kms:EncryptionContext:SecretARN": ARN},
    }


@pytest.mark.parametrize(
    "stage,domain",
    [("cn", "amazonaws.com.cn"), ("eusc", "amazonaws.eu"), ("iso-b", "sc2s.sgov.gov")],
)
def test_in_a_partition_of_its_own_a_key_is_used_through_that_partitions_services(
    stacks: dict[str, Stack], stage: str, domain: str
) -> None:
    (statement,) = granting(function_policy(stacks[stage]), "kms:Decrypt")
    region = STAGES[stage][1]["region"]

    assert statement["Condition"]["StringEquals"]["kms:ViaService"] == [
        f"secretsmanager.{region}.{each}" for each in ("amazonaws.com", domain)
    ]


def documented_policies() -> list[dict[str, Any]]:
    """Return the policies that docs/stages.md gives for a secret and a key of another account."""
    page = (ROOT / "docs" / "stages.md").read_text(encoding="utf-8")
    text = page.split("#### A secret in another account")[1].split("\n### ")[0]
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)]


def test_a_secret_of_another_account_is_read_with_that_accounts_key(stacks: dict[str, Stack]) -> None:
    policy = function_policy(stacks["foreign"])
    (read,), (decrypt,) = granting(policy, "secretsmanager:GetSecretValue"), granting(policy, "kms:Decrypt")
    of_the_secret, of_the_key = documented_policies()

    assert (read["Resource"], decrypt["Resource"]) == (FOREIGN, FOREIGN_KEY)
    # What that account permits is what the role may on its side, and no more.
    (statement,) = of_the_secret["Statement"]
    assert statement["Action"] == read["Action"]
    assert of_the_key["Action"] == decrypt["Action"]
    assert (
        of_the_key["Condition"]["StringEquals"]["kms:ViaService"]
        in decrypt["Condition"]["StringEquals"]["kms:ViaService"]
    )
    role = f"arn:aws:iam::{ACCOUNT}:role/{STAGES['foreign'][0].stack}-Role1ABCC5F0-AbCdEfGhIjKl"
    for each in (statement, of_the_key):
        assert _wildcards(each["Condition"]["ArnLike"]["aws:PrincipalArn"], role)
        assert each["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}


def test_secrets_manager_takes_the_documented_policy_of_such_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "testing"), ("SECRET_ACCESS_KEY", "testing"), ("DEFAULT_REGION", REGION)):
        monkeypatch.setenv(f"AWS_{name}", value)
    policy, _ = documented_policies()
    with mock_aws():
        manager = boto3.client("secretsmanager")
        manager.create_secret(Name="shared/database", SecretString="x")
        manager.put_resource_policy(
            SecretId="shared/database", ResourcePolicy=json.dumps(policy), BlockPublicPolicy=True
        )

        assert json.loads(manager.get_resource_policy(SecretId="shared/database")["ResourcePolicy"]) == policy


def test_with_iam_it_may_log_in_as_one_user_of_one_database(full: Stack) -> None:
    (statement,) = granting(function_policy(full), "rds-db:connect")

    assert resolved(statement["Resource"], {}) == f"arn:aws:rds-db:{REGION}:{ACCOUNT}:dbuser:cluster-ABC/migrator"
    assert (full.variables["DB_AUTH"], full.variables["DB_USER"]) == ("iam", "migrator")


def test_with_iam_there_need_be_no_secret(stacks: dict[str, Stack]) -> None:
    policy = function_policy(stacks["iam"])

    assert "DB_SECRET_ID" not in stacks["iam"].variables
    assert [each["Sid"] for each in granting(policy, "secretsmanager:GetSecretValue")] == ["ReadTheTargetsSecrets"]


def test_with_iam_it_may_log_in_as_each_user_of_each_server_of_the_fleet(stacks: dict[str, Stack]) -> None:
    statements = granting(function_policy(stacks["iam"]), "rds-db:connect")

    users = {resource for each in statements for resource in as_list(resolved(each["Resource"], {}))}
    assert users == {
        f"arn:aws:rds-db:{REGION}:{ACCOUNT}:dbuser:{server}/{user}"
        for server in ("cluster-ABC", "cluster-DEF", "prx-GHI")
        for user in ("migrator", "tenant_*")
    }


@pytest.mark.parametrize(
    "length,targets,user",
    [
        pytest.param(3, 104, "migrator_of_", marks=pytest.mark.stress),
        pytest.param(10, 70, "tenant_with_a_long_n", marks=pytest.mark.stress),
        pytest.param(80, 15, "m", marks=pytest.mark.stress),
        (3, 45, "m"),
    ],
)
def test_iam_takes_the_policies_of_the_largest_fleet(tmp_path: Path, length: int, targets: int, user: str) -> None:
    """IAM takes 10,240 characters of a role's own policies, and ten managed policies of 6,144 characters."""
    settings: dict[str, Any] = {
        "account": ACCOUNT,
        "region": REGION,
        "database": {"secret": "x", "auth": "iam", "user": "u", "resource_id": f"cluster-{'A' * 26}"},
        "network": {
            "vpc": "vpc-0123456789abcdef0",
            "subnets": ["subnet-0123456789abcdef0"],
            "database_security_group": "sg-0123456789abcdef0",
            "s3_prefix_list": "pl-12345678",
            "logs_endpoint": "sg-0123456789abcdef1",
        },
        "kms_key": KEY,
        "long_runs": {},
        "rollout": {
            "kms_key": KEY,
            "targets": [{"secret_id": f"{number:0{length}}"} for number in range(targets)],
            # With the user and the cluster of `database`, 385 logins, or 44, which need no policy of their own.
            "users": [f"{user}{number:02}" for number in range(10)],
            "resource_ids": [f"cluster-{number:026}" for number in range(34 if user != "m" else 3)],
        },
    }
    names = Names("template-saas", "api", "prod")
    app = new_app(tmp_path)
    add_stack(app, tmp_path, names, settings)
    template = app.synth().get_stack_by_name(names.stack).template
    logical_ids = {f"{name}.Arn": "a" * 110 for name in template["Resources"]} | dict.fromkeys(
        template["Resources"], "r" * 100
    )

    def size(resource: dict[str, Any]) -> int:
        return len(json.dumps(resolved(resource["Properties"]["PolicyDocument"], logical_ids), separators=(",", ":")))

    by_kind = {
        kind: [size(each) for each in template["Resources"].values() if each["Type"] == f"AWS::IAM::{kind}"]
        for kind in ("Policy", "ManagedPolicy")
    }
    assert max(by_kind["Policy"]) <= 10_240
    assert len(by_kind["ManagedPolicy"]) <= 10
    # The CDK moves statements by itself if a role's own policies are too long.
    assert not [name for name in template["Resources"] if "Overflow" in name]
    assert max(by_kind["ManagedPolicy"], default=0) <= 6144


@pytest.mark.stress
@pytest.mark.parametrize("servers,users", [(1, 500), (40, 20)])
def test_more_logins_than_policies_hold_are_refused_with_what_to_do(tmp_path: Path, servers: int, users: int) -> None:
    rollout = {
        "users": [f"u{number}" for number in range(users)],
        "resource_ids": [f"db-{number:026}" for number in range(servers)],
    }
    database = {"secret": "x", "auth": "iam", "user": "u", "resource_id": "db-A"}

    with pytest.raises(StageError, match=r"rollout: .* need 1\d policies, and IAM allows 10 .* rollout\.users"):
        add_stack(
            new_app(tmp_path),
            tmp_path,
            Names("template-saas", "api", "prod"),
            {"account": ACCOUNT, "region": REGION, "database": database, "rollout": rollout},
        )


def test_the_stages_key_encrypts_whatever_is_kept_and_its_users_may_use_it_there_only(stacks: dict[str, Stack]) -> None:
    stack = stacks["iam"]
    (encryption,) = stack.properties("AWS::S3::Bucket")["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    machine = stack.machine["RoleArn"]["Fn::GetAtt"][0]
    (github_name,) = [name for name in stack.names("AWS::IAM::Role") if name.startswith("Github")]

    assert encryption["ServerSideEncryptionByDefault"] == {"KMSMasterKeyID": KEY, "SSEAlgorithm": "aws:kms"}
    assert stack.machine["EncryptionConfiguration"]["KmsKeyId"] == KEY
    assert {each["Properties"]["KmsKeyId"] for each in stack.all("AWS::Logs::LogGroup")} == {KEY}

    def through(statements: list[dict[str, Any]]) -> dict[str, str]:
        found = [each for each in statements if each.get("Resource") == KEY]
        return {
            name: value for each in found for name, value in resolved(each["Condition"], {})["StringEquals"].items()
        }

    assert through(function_policy(stack)) == {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}
    assert through(stack.statements_of(machine)) == {
        "kms:ViaService": f"s3.{REGION}.amazonaws.com",
        "kms:EncryptionContext:aws:states:stateMachineArn": (
            f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:template-saas-api-migrate-iam"
        ),
        "kms:EncryptionContext:SourceArn": f"arn:aws:logs:{REGION}:{ACCOUNT}:*",
    }
    assert sorted(
        each["Condition"]["StringEquals"]["kms:ViaService"]
        for each in stack.statements_of(github_name)
        if each.get("Resource") == KEY
    ) == [f"s3.{REGION}.amazonaws.com", f"states.{REGION}.amazonaws.com"]


def test_network_interfaces_are_for_lambda_to_make_and_not_for_the_code_it_runs(full: Stack) -> None:
    (allowed,) = granting(function_policy(full), "ec2:CreateNetworkInterface")
    (denied,) = [each for each in function_policy(full) if each["Effect"] == "Deny"]

    assert denied["Action"] == allowed["Action"]
    assert resolved(denied["Condition"], {}) == {
        "ArnEquals": {
            "lambda:SourceFunctionArn": [f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{full.function['FunctionName']}"]
        }
    }


def test_only_lambda_may_assume_the_functions_role(dev: Stack) -> None:
    (statement,) = dev.role["Properties"]["AssumeRolePolicyDocument"]["Statement"]

    assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert "ManagedPolicyArns" not in dev.role["Properties"]
    assert dev.all("AWS::IAM::ManagedPolicy") == []


# --- who may invoke ---


def test_nobody_is_permitted_to_invoke_unless_the_stage_says_so(dev: Stack) -> None:
    assert dev.all("AWS::Lambda::Permission") == []
    assert dev.all("AWS::Lambda::Url") == []


def test_the_named_roles_may_invoke_this_function_and_nothing_else(full: Stack) -> None:
    permissions = [each["Properties"] for each in full.all("AWS::Lambda::Permission")]

    assert [each["Principal"] for each in permissions] == ROLES
    assert {each["Action"] for each in permissions} == {"lambda:InvokeFunction"}


def github(stack: Stack) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The trust and the permissions of the role that GitHub may take."""
    (name,) = [name for name in stack.names("AWS::IAM::Role") if name.startswith("Github")]
    (trust,) = stack.resource(name)["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    return trust, stack.statements_of(name)


def test_only_the_named_repositorys_environment_may_take_the_workflows_role(full: Stack) -> None:
    trust, _ = github(full)

    assert trust["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert resolved(trust["Principal"], {}) == {
        "Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"
    }
    assert trust["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": "repo:acme/app:environment:production",
        }
    }
    assert "GithubRoleArn" in full.outputs


def test_a_repository_with_an_immutable_subject_is_identified_by_its_ids(stacks: dict[str, Stack]) -> None:
    trust, _ = github(stacks["neighbour"])

    assert trust["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"] == (
        "repo:acme@123456/app@456789:environment:production"
    )


def test_the_workflow_may_invoke_the_function_read_its_log_and_run_the_machine_and_nothing_else(full: Stack) -> None:
    _, statements = github(full)

    assert {action for each in statements for action in as_list(each["Action"])} == {
        "cloudformation:DescribeStacks",
        "lambda:InvokeFunction",
        "logs:DescribeLogStreams",
        "logs:FilterLogEvents",
        "logs:GetLogEvents",
        "states:DescribeExecution",
        "states:DescribeMapRun",
        "states:ListExecutions",
        "states:ListMapRuns",
        "states:StartExecution",
        "states:StopExecution",
    }
    (function,) = full.names("AWS::Lambda::Function")
    group = full.log_group_name
    states = f"arn:aws:states:{REGION}:{ACCOUNT}"
    assert [
        resolved(each["Resource"], {"AWS::StackId": "stack", f"{group}.Arn": "log", f"{function}.Arn": "function"})
        for each in statements
    ] == [
        ["function", "function:*"],
        "log",
        "stack",
        f"{states}:stateMachine:template-saas-api-migrate-full",
        f"{states}:execution:template-saas-api-migrate-full:*",
        f"{states}:mapRun:template-saas-api-migrate-full/*",
    ]


# --- several stages in one account ---

NAMED = (
    "AlarmName",
    "DashboardName",
    "FunctionName",
    "LogGroupName",
    "RoleName",
    "StateMachineName",
    "TopicName",
)


def test_two_stages_of_one_account_have_no_name_in_common(stacks: dict[str, Stack]) -> None:
    def taken(stack: Stack) -> set[str]:
        properties = [each.get("Properties", {}) for each in stack.resources.values()]
        return {each[key] for each in properties for key in NAMED if isinstance(each.get(key), str)}

    assert taken(stacks["dev"])
    assert not taken(stacks["dev"]) & taken(stacks["neighbour"])


# --- the function's policy, as IAM decides ---


@dataclass(frozen=True)
class AwsAccount:
    """An account in which IAM is enforced, and this process has the function's role."""

    secrets: dict[str, str]


def _wildcards(pattern: str, text: str) -> re.Match[str] | None:
    """Match as IAM does. moto supports only the star and treats the rest as a regular expression."""
    parts = [{"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern]
    return re.fullmatch("".join(parts), text)


def _secret(response: SecretsManagerResponse) -> str:
    """Return the resource of a call to Secrets Manager, which moto does not determine."""
    given = json.loads(response.body).get("SecretId", "*")
    known = response.backend.secrets
    return str(known[given].arn) if given in known else given


@pytest.fixture
def account(dev: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsAccount]:
    """The account of the minimal stage: its role has exactly the policy that the template holds."""
    for name, value in (("ACCESS_KEY_ID", "testing"), ("SECRET_ACCESS_KEY", "testing"), ("DEFAULT_REGION", REGION)):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(IAMPolicyStatement, "_match", staticmethod(_wildcards))
    monkeypatch.setattr(SecretsManagerResponse, "_determine_resource", _secret, raising=False)
    monkeypatch.setenv("MOTO_ACCOUNT_ID", ACCOUNT)
    with mock_aws():
        manager = boto3.client("secretsmanager")
        made = {}
        # Of the last two, one only begins as the function's own does, and one ends in a suffix as Secrets Manager's.
        for name in (OWN, "template-saas/api/prod/database", f"{OWN}-replica", f"{OWN}/other-AbCdEf"):
            made[name] = secrets.token_hex(8)
            manager.create_secret(Name=name, SecretString=made[name])
        iam = boto3.client("iam")
        trust = dev.role["Properties"]["AssumeRolePolicyDocument"]
        role = iam.create_role(RoleName="function", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        statements = resolved(function_policy(dev), _logical_ids(dev))
        policy = {"Version": "2012-10-17", "Statement": statements}
        iam.put_role_policy(RoleName="function", PolicyName="own", PolicyDocument=json.dumps(policy))
        session = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="run")["Credentials"]
        for variable, key in (
            ("AWS_ACCESS_KEY_ID", "AccessKeyId"),
            ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"),
            ("AWS_SESSION_TOKEN", "SessionToken"),
        ):
            monkeypatch.setenv(variable, session[key])
        # boto3 and the code under test remember who they were.
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        aws.client.cache_clear()  # as a new execution environment begins
        yield AwsAccount(made)
        aws.client.cache_clear()


def _logical_ids(stack: Stack) -> dict[str, str]:
    group = stack.log_group_name
    name = stack.resource(group)["Properties"]["LogGroupName"]
    return {f"{group}.Arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{name}:*"}


def enforced(call: Callable[[], object]) -> object:
    """Return the error code of a call for which IAM is enforced; None if it is allowed."""
    return set_initial_no_auth_action_count(0)(call)()


def test_the_code_reads_the_functions_own_secret_under_the_functions_own_policy(account: AwsAccount) -> None:
    assert enforced(lambda: read_secret(OWN)) == account.secrets[OWN]


@pytest.mark.parametrize("name", ["template-saas/api/prod/database", f"{OWN}-replica", f"{OWN}/other-AbCdEf"])
def test_another_secret_is_denied(account: AwsAccount, name: str) -> None:
    assert name in account.secrets
    with pytest.raises(SecretUnavailable, match="AccessDenied"):
        enforced(lambda: read_secret(name))


CALLS: dict[str, Callable[[], object]] = {
    "describe its secret": lambda: boto3.client("secretsmanager").describe_secret(SecretId=OWN),
    "change its secret": lambda: boto3.client("secretsmanager").put_secret_value(SecretId=OWN, SecretString="x"),
    "delete its secret": lambda: boto3.client("secretsmanager").delete_secret(SecretId=OWN),
    "list secrets": lambda: boto3.client("secretsmanager").list_secrets(),
    "decrypt": lambda: boto3.client("kms").decrypt(CiphertextBlob=b"x", KeyId=KEY),
    "invoke": lambda: boto3.client("lambda").invoke(FunctionName="template-saas-api-migrate-lambda-dev"),
    "change its code": lambda: boto3.client("lambda").update_function_code(FunctionName="x", ZipFile=b""),
    "read logs": lambda: boto3.client("logs").filter_log_events(logGroupName="/aws/lambda/x"),
    "delete logs": lambda: boto3.client("logs").delete_log_group(logGroupName="/aws/lambda/x"),
    "publish": lambda: boto3.client("sns").publish(TopicArn=f"arn:aws:sns:{REGION}:{ACCOUNT}:x", Message="x"),
    "list buckets": lambda: boto3.client("s3").list_buckets(),
    "list databases": lambda: boto3.client("rds").describe_db_instances(),
    "make a network interface": lambda: boto3.client("ec2").create_network_interface(
        SubnetId="subnet-0123456789abcdef0"
    ),
    "take a role": lambda: boto3.client("sts").assume_role(
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/function", RoleSessionName="again"
    ),
    "make a user": lambda: boto3.client("iam").create_user(UserName="x"),
}


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("what", CALLS)
def test_every_other_call_is_denied(what: str) -> None:
    with pytest.raises(ClientError) as caught:
        enforced(CALLS[what])

    # By the status, as AWS and moto both have it: moto answers some services' clients in a form they cannot read.
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.FORBIDDEN
