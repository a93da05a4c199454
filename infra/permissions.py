"""The permissions of the function, the state machine and the endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk.region_info import RegionInfo

from infra.aws_rules import check_logins
from lambda_migrate.fleet.folder import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_logs as logs
    from aws_cdk import aws_s3 as s3
    from constructs import Construct

    from infra.database import Database
    from infra.names import Names
    from infra.stages import RolloutSettings

# The statement for the package that is currently deployed.
READ_PACKAGE = "ReadThePackage"
# The resources in one statement. The CDK moves statements that exceed IAM's limit for a role's own policies to managed
# policies, which IAM limits to 6,144 characters. It cannot divide a statement, and fills a managed policy up to 6,000
# characters without counting the name of each statement, so three of the second kind could exceed the limit.
_LOGINS_IN_A_STATEMENT = 25
_SECRETS_IN_A_STATEMENT = 40


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
    """Let the function take part in rollouts: list and read its targets' secrets, log in, and store objects."""
    stack = cdk.Stack.of(role)
    statements = _rollout_statements(stack, rollout, bucket.bucket_arn)
    login = database.login
    if login.iam_resource_ids and (rollout.resource_ids or rollout.users):
        servers = sorted({*login.iam_resource_ids, *rollout.resource_ids})
        users = sorted({login.user or "", *rollout.users})
        check_logins(len(servers), len(users))
        statements += _log_in(stack, "LogInToTargets", servers, users)
    for statement in statements:
        role.add_to_policy(statement)
        _excuse(role, statement, "targets come and go, so a prefix or a tag selects their secrets")


def _rollout_statements(stack: cdk.Stack, rollout: RolloutSettings, bucket_arn: str) -> list[iam.PolicyStatement]:
    statements = [
        iam.PolicyStatement(
            sid="KeepRollouts", actions=["s3:GetObject", "s3:PutObject"], resources=[f"{bucket_arn}/{ROOT}/*"]
        ),
        iam.PolicyStatement(sid="ListRollouts", actions=["s3:ListBucket"], resources=[bucket_arn]),
    ]
    return statements + _targets_secrets(stack, rollout)


def _targets_secrets(stack: cdk.Stack, rollout: RolloutSettings) -> list[iam.PolicyStatement]:
    statements = []
    named = [secret_arn(stack, target.secret_id) for target in rollout.targets if target.secret_id]
    if rollout.secret_prefix or rollout.secret_tag:
        named.append(secret_arn(stack, f"{rollout.secret_prefix or ''}*", is_pattern=True))
    parts = list(_parts(sorted(set(named)), _SECRETS_IN_A_STATEMENT))
    tag = rollout.secret_tag
    for number, part in parts:
        statements.append(
            iam.PolicyStatement(
                sid=f"ReadTheTargetsSecrets{number}",
                actions=["secretsmanager:GetSecretValue"],
                resources=part,
                conditions={"StringEquals": {f"aws:ResourceTag/{tag.key}": tag.value}} if tag else None,
            )
        )
    if (rollout.secret_prefix and not rollout.query) or rollout.secret_tag:
        statements.append(
            iam.PolicyStatement(sid="ListSecrets", actions=["secretsmanager:ListSecrets"], resources=["*"])
        )
    if rollout.kms_key:
        statements += [
            _decrypt(stack, f"DecryptTheTargetsSecrets{number}", rollout.kms_key, part) for number, part in parts
        ]
    return statements


def _parts(resources: Sequence[str], most: int) -> Iterator[tuple[str, Sequence[str]]]:
    """Divide the resources of a statement that may be too long. Yields the end of each part's name, and the part."""
    for number, first in enumerate(range(0, len(resources), most), 1):
        yield str(number) if number > 1 else "", resources[first : first + most]


def endpoint_policy(role: iam.Role, database: Database, rollout: RolloutSettings | None) -> list[iam.PolicyStatement]:
    """Return the policy of an endpoint for Secrets Manager: only this role, and only secrets that it may read."""
    stack = cdk.Stack.of(role)
    statements = [*_database(stack, database), *(_targets_secrets(stack, rollout) if rollout else ())]
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
        statements += _log_in(stack, "LogIn", database.login.iam_resource_ids, [database.login.user or ""])
    return statements


def _log_in(stack: cdk.Stack, sid: str, resource_ids: Sequence[str], users: Sequence[str]) -> list[iam.PolicyStatement]:
    resources = [
        stack.format_arn(
            service="rds-db",
            resource="dbuser",
            resource_name=f"{resource_id}/{user}",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        for resource_id in resource_ids
        for user in users
    ]
    return [
        iam.PolicyStatement(sid=f"{sid}{number}", actions=["rds-db:connect"], resources=part)
        for number, part in _parts(resources, _LOGINS_IN_A_STATEMENT)
    ]


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
