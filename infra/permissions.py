"""The permissions of the function, the state machine and the endpoint."""

from __future__ import annotations

import json
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk.region_info import RegionInfo

from infra.errors import StageError
from lambda_migrate.fleet.folder import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_logs as logs
    from aws_cdk import aws_s3 as s3
    from constructs import Construct

    from infra.database import Database
    from infra.names import Names
    from infra.settings.rollout import RolloutSettings

# The statement for the package that is currently deployed.
READ_PACKAGE = "ReadThePackage"
# IAM allows ten managed policies for a role, of 6,144 characters each, and 10,240 characters in its own policies.
_MOST_POLICIES = 10
_LONGEST_POLICY = 6144
# The longest values of CloudFormation's parameters, and of another token: an ARN.
_LONGEST_VALUES = {"AWS::Partition": 10, "AWS::Region": 14, "AWS::AccountId": 12}
_LONGEST_TOKEN = 150
_EMPTY_POLICY = '{"Version":"2012-10-17","Statement":[]}'


class _Divisible(NamedTuple):
    """A statement whose values may need several policies. ``make`` takes the end of its name."""

    make: Callable[[str, Sequence[str]], iam.PolicyStatement]
    values: Sequence[str]


def function_role(
    scope: Construct, names: Names, database: Database, log_group: logs.ILogGroup, *, in_vpc: bool, long_runs: bool
) -> iam.Role:
    """Make the function's role, which long runs use, too.

    It has all permissions except those for tracing, failed invocations and long runs.
    """
    stack = cdk.Stack.of(scope)
    principals: list[iam.PrincipalBase] = [iam.ServicePrincipal("lambda.amazonaws.com")]
    if long_runs:
        # Only this project may assume the role, not a project in another account.
        condition = {"StringEquals": {"aws:SourceArn": project_arn(stack, names)}}
        principals.append(iam.ServicePrincipal("codebuild.amazonaws.com", conditions=condition))
    role = iam.Role(
        scope,
        "Role",
        description=f"May read the database secret of {names.stage} and write to its own log group",
        assumed_by=iam.CompositePrincipal(*principals) if long_runs else principals[0],
    )
    log_group.grant_write(role)
    for statement in (*_database(stack, database), *(_in_vpc(stack, names) if in_vpc else ())):
        role.add_to_policy(statement)
    cdk.Validations.of(role).acknowledge(
        cdk.Acknowledgment(
            id="AwsSolutions::AwsSolutions-IAM5[Resource::*]",
            reason="xray:PutTraceSegments, xray:PutTelemetryRecords and what EC2 has for network interfaces know no"
            " narrower resource; the latter is denied to the function's own code",
        )
    )
    return role


def allow_rollouts(role: iam.Role, database: Database, rollout: RolloutSettings, bucket: s3.IBucket) -> None:
    """Let the function take part in rollouts: list and read its targets' secrets, log in, and store objects.

    Raises:
        StageError: the policies of a role cannot hold the targets' secrets and logins.
    """
    stack = cdk.Stack.of(role)
    statements = [*_rollout_statements(bucket.bucket_arn), *_list_secrets(rollout)]
    about_targets = _targets_secrets(stack, rollout)
    login = database.login
    if login.iam_resource_ids and (rollout.resource_ids or rollout.users):
        servers = sorted({*login.iam_resource_ids, *rollout.resource_ids})
        users = sorted({login.user or "", *rollout.users})
        about_targets.append(_Divisible(partial(_log_in, "LogInToTargets"), _logins(stack, servers, users)))
    divided = _divided(stack, about_targets)
    # The role's other statements need at most 4,000 characters.
    if len(divided) == 1:
        statements += divided[0].statements
    elif len(divided) > _MOST_POLICIES:
        raise StageError(
            f"rollout: the secrets and logins of the targets need {len(divided)} policies, and IAM allows"
            f" {_MOST_POLICIES} for a role: set patterns, such as `migrator_*` in rollout.users"
        )
    else:
        for number, part in enumerate(divided, 1):
            iam.ManagedPolicy(role, f"Targets{number}", statements=part.statements, roles=[role])
            for statement in part.statements:
                _excuse(role, statement, _TARGETS_COME_AND_GO)
    for statement in statements:
        role.add_to_policy(statement)
        _excuse(role, statement, _TARGETS_COME_AND_GO)


_TARGETS_COME_AND_GO = "targets come and go, so a prefix or a tag selects their secrets"


def _rollout_statements(bucket_arn: str) -> list[iam.PolicyStatement]:
    return [
        iam.PolicyStatement(
            sid="KeepRollouts", actions=["s3:GetObject", "s3:PutObject"], resources=[f"{bucket_arn}/{ROOT}/*"]
        ),
        iam.PolicyStatement(sid="ListRollouts", actions=["s3:ListBucket"], resources=[bucket_arn]),
    ]


def _list_secrets(rollout: RolloutSettings) -> list[iam.PolicyStatement]:
    if (rollout.secret_prefix and not rollout.query) or rollout.secret_tag:
        return [iam.PolicyStatement(sid="ListSecrets", actions=["secretsmanager:ListSecrets"], resources=["*"])]
    return []


def _targets_secrets(stack: cdk.Stack, rollout: RolloutSettings) -> list[_Divisible]:
    named = [secret_arn(stack, target.secret_id) for target in rollout.targets if target.secret_id]
    if rollout.secret_prefix or rollout.secret_tag:
        named.append(secret_arn(stack, f"{rollout.secret_prefix or ''}*", is_pattern=True))
    secrets = sorted(set(named))
    tag, key = rollout.secret_tag, rollout.kms_key

    def read(number: str, part: Sequence[str]) -> iam.PolicyStatement:
        return iam.PolicyStatement(
            sid=f"ReadTheTargetsSecrets{number}",
            actions=["secretsmanager:GetSecretValue"],
            resources=list(part),
            conditions={"StringEquals": {f"aws:ResourceTag/{tag.key}": tag.value}} if tag else None,
        )

    def decrypt(number: str, part: Sequence[str]) -> iam.PolicyStatement:
        return _decrypt(stack, f"DecryptTheTargetsSecrets{number}", key or "", part)

    if not secrets:
        return []
    return [_Divisible(read, secrets), *([_Divisible(decrypt, secrets)] if key else [])]


class _Part(NamedTuple):
    """The statements of one policy, and its length."""

    statements: list[iam.PolicyStatement]
    length: int


def _divided(stack: cdk.Stack, statements: Sequence[_Divisible]) -> list[_Part]:
    """Divide statements, so that each part fits into a managed policy.

    The CDK moves statements to managed policies by itself, but it cannot divide a statement, and does not count all
    characters.
    """
    parts = [_Part([], len(_EMPTY_POLICY))]
    for make, values in statements:
        rest, number = list(values), 1
        while rest:
            end = "" if number == 1 else str(number)
            # With two values, because the CDK writes one value without brackets.
            before = parts[-1].length + _length(stack, make(end, ["1", "2"]).to_statement_json()) + len(",")
            lengths = accumulate((_length(stack, value) + len(",") for value in rest), initial=before)
            fitting = sum(length <= _LONGEST_POLICY for length in lengths) - 1
            if fitting < 1:
                parts.append(_Part([], len(_EMPTY_POLICY)))
                continue
            statement = make(end, rest[:fitting])
            length = before + sum(_length(stack, value) + len(",") for value in rest[:fitting])
            parts[-1] = _Part([*parts[-1].statements, statement], length)
            rest, number = rest[fitting:], number + 1
    return parts


def _length(stack: cdk.Stack, value: Any) -> int:  # noqa: ANN401 - JSON
    """Return the maximum number of characters of a value in a policy, as JSON without spaces."""

    def longest(each: Any) -> Any:  # noqa: ANN401
        if isinstance(each, dict):
            if each.keys() == {"Fn::Join"}:
                return "".join(map(longest, each["Fn::Join"][1]))
            if each.keys() & {"Ref", "Fn::GetAtt", "Fn::ImportValue", "Fn::Select"}:
                return "x" * _LONGEST_VALUES.get(str(each.get("Ref")), _LONGEST_TOKEN)
            return {key: longest(inner) for key, inner in each.items()}
        return [longest(inner) for inner in each] if isinstance(each, list) else each

    return len(json.dumps(longest(stack.resolve(value)), separators=(",", ":")))


def endpoint_policy(role: iam.Role, database: Database, rollout: RolloutSettings | None) -> list[iam.PolicyStatement]:
    """Return the policy of an endpoint for Secrets Manager: only this role, and only secrets that it may read."""
    stack = cdk.Stack.of(role)
    statements = _database(stack, database)
    if rollout:
        statements += _list_secrets(rollout)
        statements += [make("", values) for make, values in _targets_secrets(stack, rollout)]
    return [
        iam.PolicyStatement(
            principals=[iam.AnyPrincipal()],
            actions=statement.actions,
            resources=statement.resources,
            conditions={**statement.conditions, "ArnEquals": {"aws:PrincipalArn": role.role_arn}},
        )
        for statement in statements
        if all(action.startswith("secretsmanager:") for action in statement.actions)
    ]


def machine_role(
    scope: Construct, names: Names, function: lambda_.IFunction, bucket: s3.IBucket | None, *, reads_alarms: bool
) -> iam.Role:
    """Make the state machine's role. It may invoke the function and, for rollouts, run a Distributed Map."""
    stack = cdk.Stack.of(scope)
    role = iam.Role(
        scope,
        "MachineRole",
        description=f"May invoke {names.function}",
        # Only this machine may assume the role, not a machine in another account.
        assumed_by=iam.ServicePrincipal(
            "states.amazonaws.com",
            conditions={
                "StringEquals": {"aws:SourceAccount": stack.account},
                "ArnLike": {"aws:SourceArn": states_arn(stack, "stateMachine", f"{names.state_machine}*")},
            },
        ),
    )
    statements = [
        # All versions, because an execution keeps the version that it started with.
        iam.PolicyStatement(
            sid="Invoke",
            actions=["lambda:InvokeFunction"],
            resources=[function.function_arn, f"{function.function_arn}:*"],
        ),
        iam.PolicyStatement(
            sid="ListVersions", actions=["lambda:ListVersionsByFunction"], resources=[function.function_arn]
        ),
        # This pattern matches versions only, so the machine cannot delete the function itself.
        iam.PolicyStatement(
            sid="PruneVersions", actions=["lambda:DeleteFunction"], resources=[f"{function.function_arn}:*"]
        ),
        # The developer guide of Step Functions has these in "Logging" and "X-Ray". Neither supports a resource.
        iam.PolicyStatement(
            sid="DeliverTheLog",
            actions=[
                *(f"logs:{what}LogDelivery" for what in ("Create", "Get", "Update", "Delete")),
                *("logs:ListLogDeliveries", "logs:PutResourcePolicy"),
                *("logs:DescribeResourcePolicies", "logs:DescribeLogGroups"),
            ],
            resources=["*"],
        ),
        iam.PolicyStatement(
            sid="Trace",
            actions=[
                *("xray:PutTraceSegments", "xray:PutTelemetryRecords"),
                *("xray:GetSamplingRules", "xray:GetSamplingTargets"),
            ],
            resources=["*"],
        ),
    ]
    if bucket:
        # The children of a Distributed Map are executions of its machine ("IAM policies for using Distributed Map
        # states" in the same guide). DescribeExecution also shows whether another rollout still runs.
        own = states_arn(stack, "stateMachine", names.state_machine)
        executions = states_arn(stack, "execution", f"{names.state_machine}:*")
        children = states_arn(stack, "execution", f"{names.state_machine}/*")
        statements += [
            iam.PolicyStatement(sid="StartChildren", actions=["states:StartExecution"], resources=[own]),
            iam.PolicyStatement(
                sid="FollowChildren",
                actions=["states:DescribeExecution", "states:StopExecution", "states:RedriveExecution"],
                resources=[executions, children],
            ),
            iam.PolicyStatement(
                sid="ReadWaves", actions=["s3:GetObject"], resources=[bucket.arn_for_objects(f"{ROOT}/*")]
            ),
            iam.PolicyStatement(sid="SeeWhetherHalted", actions=["s3:ListBucket"], resources=[bucket.bucket_arn]),
            iam.PolicyStatement(
                sid="WriteResults",
                actions=["s3:GetObject", "s3:PutObject", "s3:ListMultipartUploadParts", "s3:AbortMultipartUpload"],
                resources=[bucket.arn_for_objects("map-runs/*")],
            ),
        ]
    if reads_alarms:
        # CloudWatch returns composite alarms only to a caller that may read all alarms ("DescribeAlarms" in its API).
        statements.append(iam.PolicyStatement(sid="ReadAlarms", actions=["cloudwatch:DescribeAlarms"], resources=["*"]))
    for statement in statements:
        role.add_to_policy(statement)
        _excuse(
            role, statement, "X-Ray and log delivery support no resource; executions get their names when they start"
        )
    return role


def states_arn(stack: cdk.Stack, resource: str, name: str) -> str:
    """Return the ARN of a ``stateMachine`` by its name, an ``execution`` of one, or a ``mapRun``."""
    return stack.format_arn(
        service="states", resource=resource, resource_name=name, arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME
    )


def project_arn(stack: cdk.Stack, names: Names) -> str:
    """Return the ARN of the CodeBuild project for the stage's long runs."""
    return stack.format_arn(service="codebuild", resource="project", resource_name=names.long_runs)


def allow(
    role: iam.Role,
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    reason: str,
    conditions: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Allow the role these actions. ``reason`` is for cdk-nag, if a resource has a wildcard."""
    statement = iam.PolicyStatement(sid=sid, actions=list(actions), resources=list(resources), conditions=conditions)
    role.add_to_policy(statement)
    _excuse(role, statement, reason)


def _excuse(role: iam.Role, statement: iam.PolicyStatement, reason: str) -> None:
    """Give cdk-nag the reason for each resource with a wildcard. It requires them one by one."""
    stack = cdk.Stack.of(role)
    for resource in statement.resources:
        if "*" in resource:
            resolved = stack.resolve(resource)
            parts = resolved["Fn::Join"][1] if isinstance(resolved, dict) else [resolved]
            text = "".join(
                part if isinstance(part, str) else f"<{part['Ref'] if 'Ref' in part else '.'.join(part['Fn::GetAtt'])}>"
                for part in parts
            )
            cdk.Validations.of(role).acknowledge(
                cdk.Acknowledgment(id=f"AwsSolutions::AwsSolutions-IAM5[Resource::{text}]", reason=reason)
            )


def use_key(role: iam.Role, key: kms.IKey | None, *services: str) -> None:
    """Allow the role to use the key through these services only: objects of a bucket, and data of executions."""
    if key is None:
        return
    for service in services:
        role.add_to_policy(
            iam.PolicyStatement(
                sid=f"UseTheKeyIn{service.title()}",
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=[key.key_arn],
                conditions={"StringEquals": {"kms:ViaService": _through(role, service)}},
            )
        )


def _through(scope: Construct, service: str) -> str | list[str]:
    """Return the service's name in the region, for the key's condition ``kms:ViaService``."""
    region = cdk.Stack.of(scope).region
    domains = ["amazonaws.com"]
    # Other partitions have their own domain. Their documents do not agree on the one that a key gets.
    own = None if cdk.Token.is_unresolved(region) else RegionInfo.get(region).domain_suffix
    if own and own not in domains:
        domains.append(own)
    names = [f"{service}.{region}.{domain}" for domain in domains]
    return names if len(names) > 1 else names[0]


def encrypt_executions(role: iam.Role, names: Names, key: kms.IKey) -> None:
    """Allow the state machine's role to encrypt executions and their log ("Data at rest" in Step Functions' guide)."""
    stack = cdk.Stack.of(role)
    contexts = {
        "Executions": {"aws:states:stateMachineArn": states_arn(stack, "stateMachine", names.state_machine)},
        "TheLog": {"SourceArn": stack.format_arn(service="logs", resource="*")},
    }
    for what, context in contexts.items():
        conditions = {f"kms:EncryptionContext:{name}": value for name, value in context.items()}
        role.add_to_policy(
            iam.PolicyStatement(
                sid=f"Encrypt{what}",
                actions=["kms:Decrypt", "kms:GenerateDataKey"] if what == "Executions" else ["kms:GenerateDataKey"],
                resources=[key.key_arn],
                conditions={"StringEquals": conditions},
            )
        )


def publish_encrypted(scope: Construct, key_arn: str) -> iam.PolicyStatement:
    """Return the permissions that publishing to an encrypted topic needs, besides the permission to publish."""
    return iam.PolicyStatement(
        sid="EncryptForTheTopic",
        actions=["kms:Decrypt", "kms:GenerateDataKey"],
        resources=[key_arn],
        conditions={"StringEquals": {"kms:ViaService": _through(scope, "sns")}},
    )


def secret_arn(stack: cdk.Stack, name_or_arn: str, *, is_pattern: bool = False) -> str:
    """Return the ARN of a secret in a policy, or a pattern of several secrets."""
    if name_or_arn.startswith("arn:"):
        return name_or_arn
    # Secrets Manager ends an ARN with six random characters. A "*" in their place would let the function read every
    # secret whose name begins like this one.
    return stack.format_arn(
        service="secretsmanager",
        resource="secret",
        resource_name=name_or_arn if is_pattern else f"{name_or_arn}-??????",
        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
    )


def _database(stack: cdk.Stack, database: Database) -> list[iam.PolicyStatement]:
    statements = []
    if database.secret_arn:
        statements.append(
            iam.PolicyStatement(
                sid="ReadTheSecret", actions=["secretsmanager:GetSecretValue"], resources=[database.secret_arn]
            )
        )
        if database.secret_key_arn:
            statements.append(_decrypt(stack, "DecryptTheSecret", database.secret_key_arn, database.secret_arn))
    if database.login.iam_resource_ids:
        users = [database.login.user or ""]
        statements.append(_log_in("LogIn", "", _logins(stack, database.login.iam_resource_ids, users)))
    return statements


def _logins(stack: cdk.Stack, resource_ids: Sequence[str], users: Sequence[str]) -> list[str]:
    return [
        stack.format_arn(
            service="rds-db",
            resource="dbuser",
            resource_name=f"{resource_id}/{user}",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        for resource_id in resource_ids
        for user in users
    ]


def _log_in(sid: str, number: str, logins: Sequence[str]) -> iam.PolicyStatement:
    return iam.PolicyStatement(sid=f"{sid}{number}", actions=["rds-db:connect"], resources=list(logins))


def _decrypt(stack: cdk.Stack, sid: str, key_arn: str, secrets: str | Sequence[str]) -> iam.PolicyStatement:
    return iam.PolicyStatement(
        sid=sid,
        actions=["kms:Decrypt"],
        resources=[key_arn],
        # Only through Secrets Manager, and only for these secrets: the key may protect other secrets and other data,
        # too.
        conditions={
            "StringEquals": {"kms:ViaService": _through(stack, "secretsmanager")},
            "StringLike": {"kms:EncryptionContext:SecretARN": secrets},
        },
    )


def _in_vpc(stack: cdk.Stack, names: Names) -> list[iam.PolicyStatement]:
    # Lambda makes the network interfaces with the function's role, and EC2 supports no narrower resource. Therefore
    # these statements deny the actions to the code in the function (Lambda developer guide, "Giving Lambda functions
    # access to resources in an Amazon VPC").
    actions = [
        "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:AssignPrivateIpAddresses",
        "ec2:UnassignPrivateIpAddresses",
    ]
    function = stack.format_arn(
        service="lambda",
        resource="function",
        resource_name=names.function,
        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
    )
    return [
        iam.PolicyStatement(sid="BePlacedInTheVpc", actions=actions, resources=["*"]),
        iam.PolicyStatement(
            sid="ButOnlyByLambdaItself",
            effect=iam.Effect.DENY,
            actions=actions,
            resources=["*"],
            conditions={"ArnEquals": {"lambda:SourceFunctionArn": [function]}},
        ),
    ]
