"""What the function may do: read one secret, log in, write its own log, and be placed in its VPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

if TYPE_CHECKING:
    from aws_cdk import aws_logs as logs
    from constructs import Construct

    from infra.names import Names
    from infra.stages import DatabaseSettings, Stage


def function_role(scope: Construct, names: Names, stage: Stage, log_group: logs.ILogGroup) -> iam.Role:
    """The function's role. Everything it may do is here, except what tracing and failed invocations add."""
    role = iam.Role(
        scope,
        "Role",
        description=f"May read the database secret of {names.stage} and write to its own log group",
        assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
    )
    log_group.grant_write(role)
    stack = cdk.Stack.of(scope)
    for statement in (*_database(stack, stage.database), *_network(stack, names, stage)):
        role.add_to_policy(statement)
    cdk.Validations.of(role).acknowledge(
        cdk.Acknowledgment(
            id="AwsSolutions::AwsSolutions-IAM5[Resource::*]",
            reason="xray:PutTraceSegments, xray:PutTelemetryRecords and what EC2 has for network interfaces know no"
            " narrower resource; the latter is denied to the function's own code",
        )
    )
    return role


def publish_encrypted(scope: Construct, key_arn: str) -> iam.PolicyStatement:
    """What publishing to a topic that this key encrypts takes beside the permission to publish."""
    region = cdk.Stack.of(scope).region
    return iam.PolicyStatement(
        sid="EncryptForTheTopic",
        actions=["kms:Decrypt", "kms:GenerateDataKey"],
        resources=[key_arn],
        conditions={"StringEquals": {"kms:ViaService": f"sns.{region}.amazonaws.com"}},
    )


def secret_arn(stack: cdk.Stack, name_or_arn: str) -> str:
    """The secret as a policy names it."""
    if name_or_arn.startswith("arn:"):
        return name_or_arn
    # Secrets Manager ends an ARN with six characters that nobody knows beforehand. A "*" there would let the function
    # read every secret whose name only begins like this one's.
    return stack.format_arn(
        service="secretsmanager",
        resource="secret",
        resource_name=f"{name_or_arn}-??????",
        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
    )


def _database(stack: cdk.Stack, database: DatabaseSettings) -> list[iam.PolicyStatement]:
    secret = secret_arn(stack, database.secret)
    statements = [
        iam.PolicyStatement(sid="ReadTheSecret", actions=["secretsmanager:GetSecretValue"], resources=[secret])
    ]
    if database.kms_key:
        statements.append(
            iam.PolicyStatement(
                sid="DecryptTheSecret",
                actions=["kms:Decrypt"],
                resources=[database.kms_key],
                # Only what Secrets Manager asks for in the function's name, and only this secret: the key may well
                # protect others, and data that is no secret of Secrets Manager.
                conditions={
                    "StringEquals": {"kms:ViaService": f"secretsmanager.{stack.region}.amazonaws.com"},
                    "StringLike": {"kms:EncryptionContext:SecretARN": secret},
                },
            )
        )
    if database.auth == "iam":
        user = stack.format_arn(
            service="rds-db",
            resource="dbuser",
            resource_name=f"{database.resource_id}/{database.user}",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        statements.append(iam.PolicyStatement(sid="LogIn", actions=["rds-db:connect"], resources=[user]))
    return statements


def _network(stack: cdk.Stack, names: Names, stage: Stage) -> list[iam.PolicyStatement]:
    if stage.network is None:
        return []
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
