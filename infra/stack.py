"""The stack of one stage: the function, the role that may read one secret, and its log group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager

from infra.network import place

if TYPE_CHECKING:
    from pathlib import Path

    from constructs import Construct

    from infra.network import Network
    from infra.stages import Stage

DEFAULT_DATABASE_PORT = 5432
HANDLER = "lambda_migrate.handler.handler"
CA_BUNDLE_IN_PACKAGE = "database-ca.pem"


@dataclass(frozen=True)
class Names:
    """What everything of one stage is called; docs/contract.md promises these to the outside."""

    prefix: str
    service: str
    stage: str

    @property
    def stack(self) -> str:
        """The CloudFormation stack."""
        return f"{self.prefix}-{self.service}-migrate-{self.stage}"

    @property
    def function(self) -> str:
        """The Lambda function."""
        return f"{self.prefix}-{self.service}-migrate-lambda-{self.stage}"

    @property
    def log_group(self) -> str:
        """The function's log group, under the name that Lambda itself would give it."""
        return f"/aws/lambda/{self.function}"


class MigrateStack(cdk.Stack):
    """One stage's migration function. ``package`` is the folder that becomes its code, ``asset_hash`` its digest."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        names: Names,
        stage: Stage,
        package: Path,
        asset_hash: str,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(scope, construct_id, stack_name=names.stack, **options)
        secret = _secret(self, stage.database.secret)
        log_group = logs.LogGroup(
            self,
            "Logs",
            log_group_name=names.log_group,
            removal_policy=cdk.RemovalPolicy.RETAIN if names.stage == "prod" else cdk.RemovalPolicy.DESTROY,
        )
        # The construct takes an enum without numbers; CloudFormation takes the number.
        cast("logs.CfnLogGroup", log_group.node.default_child).retention_in_days = stage.log_retention_days
        role = iam.Role(
            self,
            "Role",
            description=f"May read the database secret of {names.stage} and write to its own log group",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        )
        secret.grant_read(role)
        log_group.grant_write(role)
        network = self._network(stage, role)
        function = lambda_.Function(
            self,
            "Function",
            function_name=names.function,
            description=f"Migrates the database of {names.prefix} {names.service} {names.stage} with Alembic",
            runtime=_runtime(stage),
            architecture=lambda_.Architecture.ARM_64 if stage.architecture == "arm64" else lambda_.Architecture.X86_64,
            handler=HANDLER,
            # A hash of our own: the CDK remembers its fingerprints by inode, size and time of change, and all files
            # of a package have the same time, so that a changed file could pass for an unchanged one.
            code=lambda_.Code.from_asset(str(package), asset_hash=asset_hash),
            role=role,
            log_group=log_group,
            # Lambda's own lines, and the trace of an error, are JSON like ours.
            logging_format=lambda_.LoggingFormat.JSON,
            vpc=network.vpc if network else None,
            vpc_subnets=network.subnets if network else None,
            security_groups=network.security_groups if network else None,
            memory_size=stage.memory_mb,
            timeout=cdk.Duration.seconds(stage.timeout_s),
            # A failed migration is for a person or a pipeline to look at, not for Lambda to try twice more.
            retry_attempts=0,
            environment=_environment(names, stage, secret),
        )
        cdk.CfnOutput(self, "FunctionName", value=function.function_name)
        cdk.CfnOutput(self, "FunctionArn", value=function.function_arn)
        cdk.CfnOutput(self, "LogGroupName", value=log_group.log_group_name)
        cdk.Tags.of(self).add("project", names.prefix)
        cdk.Tags.of(self).add("stage", names.stage)

    def _network(self, stage: Stage, role: iam.Role) -> Network | None:
        if stage.network is None:
            return None
        role.add_to_policy(
            iam.PolicyStatement(
                sid="BePlacedInTheVpc",
                # Lambda makes the function's network interfaces in its role's name, and EC2 knows no narrower resource
                # for these (Lambda developer guide, "Execution role permissions" of VPC functions).
                actions=[
                    "ec2:CreateNetworkInterface",
                    "ec2:DeleteNetworkInterface",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeSubnets",
                    "ec2:AssignPrivateIpAddresses",
                    "ec2:UnassignPrivateIpAddresses",
                ],
                resources=["*"],
            )
        )
        return place(
            self,
            stage.network,
            database_port=stage.database.port or DEFAULT_DATABASE_PORT,
            secrets_manager=f"com.amazonaws.{self.region}.secretsmanager",
        )


def _secret(scope: Construct, name_or_arn: str) -> secretsmanager.ISecret:
    if name_or_arn.startswith("arn:"):
        return secretsmanager.Secret.from_secret_complete_arn(scope, "Secret", name_or_arn)
    return secretsmanager.Secret.from_secret_name_v2(scope, "Secret", name_or_arn)


def _runtime(stage: Stage) -> lambda_.Runtime:
    if stage.runtime == "local":
        return lambda_.Runtime.PROVIDED_AL2023
    return lambda_.Runtime(stage.runtime, lambda_.RuntimeFamily.PYTHON)


def _environment(names: Names, stage: Stage, secret: secretsmanager.ISecret) -> dict[str, str]:
    """The function's variables: what the stage's settings say, then what they add or override by name."""
    database = stage.database
    variables = {
        "STAGE": names.stage,
        "DB_SECRET_ID": secret.secret_arn if database.secret.startswith("arn:") else database.secret,
        "DB_HOST": database.host,
        "DB_PORT": str(database.port) if database.port else None,
        "DB_NAME": database.name,
        "DB_SSLROOTCERT": CA_BUNDLE_IN_PACKAGE if database.ca_bundle else None,
        "ALEMBIC_CONFIG": stage.alembic_config,
        "POWERTOOLS_SERVICE_NAME": f"{names.prefix}-{names.service}-migrate",
        "POWERTOOLS_METRICS_NAMESPACE": f"{names.prefix}/migrate",
    }
    return {name: value for name, value in {**variables, **stage.environment}.items() if value is not None}
