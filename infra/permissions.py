"""What the function may do: read its secret or its targets', log in, write its own log, and be placed in its VPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from lambda_migrate.fleet.folder import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_logs as logs
    from aws_cdk import aws_s3 as s3
    from constructs import Construct

    from infra.database import Database
    from infra.names import Names
    from infra.stages import RolloutSettings

# The statement that names the package that is deployed.
READ_PACKAGE = "ReadThePackage"
_DOMAINS = {"cn-": "amazonaws.com.cn", "eusc-": "amazonaws.eu"}


def function_role(
    scope: Construct, names: Names, database: Database, log_group: logs.ILogGroup, *, in_vpc: bool, long_runs: bool
) -> iam.Role:
    """The function's role, also for long runs.

    Everything it may do is here, except what tracing, failed invocations and long runs add.
    """
    stack = cdk.Stack.of(scope)
    principals: list[iam.PrincipalBase] = [iam.ServicePrincipal("lambda.amazonaws.com")]
    if long_runs:
        # CodeBuild takes it for this project only, and not for another account's.
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
    """Let the function do its part of rollouts: list its targets' secrets, read them, log in, and keep its objects."""
    stack = cdk.Stack.of(role)
    statements = _rollout_statements(stack, rollout, bucket.bucket_arn)
    login = database.login
    if login.iam_resource_ids and (rollout.resource_ids or rollout.users):
        servers = sorted({*login.iam_resource_ids, *rollout.resource_ids})
        users = sorted({login.user or "", *rollout.users})
        statements.append(_log_in(stack, "LogInToTargets", servers, users))
    for statement in statements:
        role.add_to_policy(statement)
        _excuse(role, statement, "targets come and go: they are told by the beginning of a name, or by a tag")


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
    if named:
        tag = rollout.secret_tag
        statements.append(
            iam.PolicyStatement(
                sid="ReadTheTargetsSecrets",
                actions=["secretsmanager:GetSecretValue"],
                resources=sorted(set(named)),
                conditions={"StringEquals": {f"aws:ResourceTag/{tag.key}": tag.value}} if tag else None,
            )
        )
    if (rollout.secret_prefix and not rollout.query) or rollout.secret_tag:
        statements.append(
            iam.PolicyStatement(sid="ListSecrets", actions=["secretsmanager:ListSecrets"], resources=["*"])
        )
    if rollout.kms_key:
        statements.append(_decrypt(stack, "DecryptTheTargetsSecrets", rollout.kms_key, sorted(set(named))))
    return statements


def endpoint_policy(role: iam.Role, database: Database, rollout: RolloutSettings | None) -> list[iam.PolicyStatement]:
    """What an endpoint of Secrets Manager lets through: this role, and what the role itself may read there."""
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
    """The state machine's role: it may invoke the function, and where there are rollouts, run a Distributed Map."""
    stack = cdk.Stack.of(scope)
    role = iam.Role(
        scope,
        "MachineRole",
        description=f"May invoke {names.function}",
        # Step Functions takes it for this machine only, and not for another account's.
        assumed_by=iam.ServicePrincipal(
            "states.amazonaws.com",
            conditions={
                "StringEquals": {"aws:SourceAccount": stack.account},
                "ArnLike": {"aws:SourceArn": states_arn(stack, "stateMachine", f"{names.state_machine}*")},
            },
        ),
    )
    statements = [
        # Every version: an execution goes on with the one that it began with.
        iam.PolicyStatement(
            sid="Invoke",
            actions=["lambda:InvokeFunction"],
            resources=[function.function_arn, f"{function.function_arn}:*"],
        ),
        iam.PolicyStatement(
            sid="ListVersions", actions=["lambda:ListVersionsByFunction"], resources=[function.function_arn]
        ),
        # A version's ARN goes on after the function's own, so the function itself cannot be deleted.
        iam.PolicyStatement(
            sid="PruneVersions", actions=["lambda:DeleteFunction"], resources=[f"{function.function_arn}:*"]
        ),
        # As the developer guide of Step Functions has them, in "Logging" and in "X-Ray"; neither knows a resource.
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
        # A Distributed Map's children are executions of the machine that has it ("IAM policies for using Distributed
        # Map states" in the same guide). To describe them is also to see whether another rollout still runs.
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
        # CloudWatch shows composite alarms only to whoever may read all ("DescribeAlarms" in its API).
        statements.append(iam.PolicyStatement(sid="ReadAlarms", actions=["cloudwatch:DescribeAlarms"], resources=["*"]))
    for statement in statements:
        role.add_to_policy(statement)
        _excuse(
            role, statement, "X-Ray and the delivery of logs know no resource; executions are named when they start"
        )
    return role


def states_arn(stack: cdk.Stack, resource: str, name: str) -> str:
    """Something of Step Functions: a ``stateMachine`` by its name, the ``execution`` of one, or a ``mapRun``."""
    return stack.format_arn(
        service="states", resource=resource, resource_name=name, arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME
    )


def project_arn(stack: cdk.Stack, names: Names) -> str:
    """The CodeBuild project of the stage's long runs."""
    return stack.format_arn(service="codebuild", resource="project", resource_name=names.long_runs)


def allow(
    role: iam.Role,
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    reason: str,
    conditions: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Let the role do this; the reason is for resources that stand for many."""
    statement = iam.PolicyStatement(sid=sid, actions=list(actions), resources=list(resources), conditions=conditions)
    role.add_to_policy(statement)
    _excuse(role, statement, reason)


def _excuse(role: iam.Role, statement: iam.PolicyStatement, reason: str) -> None:
    """Give cdk-nag the reason for each resource of a statement that stands for many; it wants them one by one."""
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
    """Let the role use the key, through these services only: for objects of a bucket, and data of executions."""
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
    """The service's name in the region, by which a key knows through whom it is used."""
    region = cdk.Stack.of(scope).region
    names = [f"{service}.{region}.amazonaws.com"]
    # Other partitions have a domain of their own, and their documents do not agree on which one a key sees.
    names += [f"{service}.{region}.{domain}" for begin, domain in _DOMAINS.items() if region.startswith(begin)]
    return names if len(names) > 1 else names[0]


def encrypt_executions(role: iam.Role, names: Names, key: kms.IKey) -> None:
    """Let the state machine's role use the key for executions and their log, as its guide has it in "Data at rest"."""
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
    """What publishing to a topic that this key encrypts takes beside the permission to publish."""
    return iam.PolicyStatement(
        sid="EncryptForTheTopic",
        actions=["kms:Decrypt", "kms:GenerateDataKey"],
        resources=[key_arn],
        conditions={"StringEquals": {"kms:ViaService": _through(scope, "sns")}},
    )


def secret_arn(stack: cdk.Stack, name_or_arn: str, *, is_pattern: bool = False) -> str:
    """The secret as a policy names it, or every secret that a pattern stands for."""
    if name_or_arn.startswith("arn:"):
        return name_or_arn
    # Secrets Manager ends an ARN with six characters that nobody knows beforehand. A "*" there would let the function
    # read every secret whose name only begins like this one's.
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
        statements.append(_log_in(stack, "LogIn", database.login.iam_resource_ids, [database.login.user or ""]))
    return statements


def _log_in(stack: cdk.Stack, sid: str, resource_ids: Sequence[str], users: Sequence[str]) -> iam.PolicyStatement:
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
    return iam.PolicyStatement(sid=sid, actions=["rds-db:connect"], resources=resources)


def _decrypt(stack: cdk.Stack, sid: str, key_arn: str, secrets: str | Sequence[str]) -> iam.PolicyStatement:
    return iam.PolicyStatement(
        sid=sid,
        actions=["kms:Decrypt"],
        resources=[key_arn],
        # Only what Secrets Manager asks for in the function's name, and only these secrets: the key may well protect
        # others, and data that is no secret of Secrets Manager.
        conditions={
            "StringEquals": {"kms:ViaService": _through(stack, "secretsmanager")},
            "StringLike": {"kms:EncryptionContext:SecretARN": secrets},
        },
    )


def _in_vpc(stack: cdk.Stack, names: Names) -> list[iam.PolicyStatement]:
    # Lambda makes the function's network interfaces in its role's name, and EC2 knows no narrower resource for these.
    # So the code that runs in the function is denied what its role may (Lambda developer guide, "Giving Lambda
    # functions access to resources in an Amazon VPC", which has both statements).
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
