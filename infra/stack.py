"""The stack of one stage: the function, the role that may read one secret, and its log group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import aws_cdk as cdk
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns

from infra import notification
from infra.deployment import ROLLBACK_VARIABLES, migrate_on_deploy
from infra.invokers import github_role, let_roles_invoke, let_roll_out
from infra.monitoring import Observed, monitor
from infra.network import place
from infra.permissions import allow_rollouts, function_role, publish_encrypted
from infra.state_machine import rollouts_bucket, state_machine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_s3 as s3
    from constructs import Construct

    from infra.names import Names
    from infra.stages import RolloutSettings, Stage

DEFAULT_DATABASE_PORT = 5432
HANDLER = "lambda_migrate.handler.handler"
CA_BUNDLE_IN_PACKAGE = "database-ca.pem"


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
        protect = names.stage == "prod" if stage.protect is None else stage.protect
        super().__init__(scope, construct_id, stack_name=names.stack, termination_protection=protect, **options)
        # Without it the construct of a Distributed Map knows only a writer that it calls deprecated.
        self.node.set_context("@aws-cdk/aws-stepfunctions:useDistributedMapResultWriterV2", True)  # noqa: FBT003
        key = kms.Key.from_key_arn(self, "Key", stage.kms_key) if stage.kms_key else None
        # CloudFormation writes the resources in this order.
        log_group = self._log_group(names, stage, key, protect=protect)
        topic = notification.topic(self, names, stage.alarms, key)
        role = function_role(self, names, stage, log_group)
        if topic and key:
            role.add_to_policy(publish_encrypted(self, key.key_arn))
        bucket = self._rollouts_bucket(stage.rollout, role) if stage.rollout else None
        function = lambda_.Function(
            self,
            "Function",
            function_name=names.function,
            description=f"Migrates the database of {names.prefix} {names.service} {names.stage} with Alembic",
            role=role,
            log_group=log_group,
            # Lambda's own lines, and the trace of an error, are JSON like ours.
            logging_format=lambda_.LoggingFormat.JSON,
            memory_size=stage.memory_mb,
            timeout=cdk.Duration.seconds(stage.timeout_s),
            # A person or a pipeline must look at a failed migration; Lambda must not retry it.
            retry_attempts=0,
            # Nobody waits for the answer of an asynchronous run.
            on_failure=_destination(self, topic) if topic else None,
            # Shows where a run's time went, including Lambda's own start.
            tracing=lambda_.Tracing.ACTIVE,
            environment=_environment(names, stage, bucket),
            **_code(stage, package, asset_hash),
            **self._network(stage),
        )
        cdk.Validations.of(function).acknowledge(
            cdk.Acknowledgment(
                id="AwsSolutions::AwsSolutions-L1",
                reason="the stage names its runtime: the package holds wheels and bytecode for exactly that one",
            )
        )
        self._let_invoke(names, stage, function, log_group, bucket)
        machine = state_machine(self, names, stage, function, bucket=bucket, key=key, protect=protect)
        cdk.CfnOutput(self, "StateMachineArn", value=machine.state_machine_arn)
        monitor(self, Observed(names, stage, function, log_group, topic, machine))
        cdk.CfnOutput(self, "FunctionName", value=function.function_name)
        cdk.CfnOutput(self, "FunctionArn", value=function.function_arn)
        cdk.CfnOutput(self, "LogGroupName", value=log_group.log_group_name)
        self._tag({"project": names.prefix, "stage": names.stage})
        # It waits for everything before it, so it comes last.
        if stage.migrate_on_deploy:
            migrate_on_deploy(self, function, stage.timeout_s)
        self._tag(stage.tags)

    def _log_group(self, names: Names, stage: Stage, key: kms.IKey | None, *, protect: bool) -> logs.LogGroup:
        log_group = logs.LogGroup(
            self,
            "Logs",
            log_group_name=names.log_group,
            encryption_key=key,
            removal_policy=cdk.RemovalPolicy.RETAIN if protect else cdk.RemovalPolicy.DESTROY,
        )
        # The construct takes an enum without numbers; CloudFormation takes the number.
        cast("logs.CfnLogGroup", log_group.node.default_child).retention_in_days = stage.log_retention_days
        return log_group

    def _rollouts_bucket(self, rollout: RolloutSettings, role: iam.Role) -> s3.Bucket:
        bucket = rollouts_bucket(self)
        allow_rollouts(role, rollout, bucket)
        cdk.CfnOutput(self, "RolloutBucket", value=bucket.bucket_name)
        return bucket

    def _let_invoke(
        self,
        names: Names,
        stage: Stage,
        function: lambda_.Function,
        log_group: logs.LogGroup,
        bucket: s3.IBucket | None,
    ) -> None:
        let_roles_invoke(function, stage.invokers)
        if stage.github:
            github = github_role(self, stage.github, function, log_group)
            let_roll_out(github, names, bucket)
            cdk.CfnOutput(self, "GithubRoleArn", value=github.role_arn)

    def _tag(self, tags: Mapping[str, str]) -> None:
        for tag, value in tags.items():
            cdk.Tags.of(self).add(tag, value)

    def _network(self, stage: Stage) -> dict[str, Any]:
        """Return the function's arguments for its VPC, if it has one."""
        if stage.network is None:
            return {}
        network = place(
            self,
            stage.network,
            database_port=stage.database.port or DEFAULT_DATABASE_PORT,
            secrets_manager=f"com.amazonaws.{self.region}.secretsmanager",
        )
        return {"vpc": network.vpc, "vpc_subnets": network.subnets, "security_groups": network.security_groups}


def _destination(scope: Construct, topic: sns.ITopic) -> destinations.SnsDestination:
    # By its ARN alone: of a topic that it knows the key of, the construct would let the function decrypt with that key
    # whatever it likes.
    return destinations.SnsDestination(sns.Topic.from_topic_arn(scope, "FailedRuns", topic.topic_arn))


def _code(stage: Stage, package: Path, asset_hash: str) -> dict[str, Any]:
    """Return the function's arguments for its code, and for what runs it."""
    arm = stage.architecture == "arm64"
    architecture = lambda_.Architecture.ARM_64 if arm else lambda_.Architecture.X86_64
    if stage.packaging == "image":
        image = lambda_.Code.from_asset_image(
            str(package),
            build_args={"PYTHON": stage.runtime.removeprefix("python")},
            platform=ecr_assets.Platform.LINUX_ARM64 if arm else ecr_assets.Platform.LINUX_AMD64,
            extra_hash=asset_hash,
        )
        return {
            "code": image,
            "architecture": architecture,
            "runtime": lambda_.Runtime.FROM_IMAGE,
            "handler": lambda_.Handler.FROM_IMAGE,
        }
    local = stage.runtime == "local"
    return {
        # The CDK caches its own fingerprints by inode, size and time of change. All files of a package have the same
        # time, so a changed file could pass for an unchanged one.
        "code": lambda_.Code.from_asset(str(package), asset_hash=asset_hash),
        "architecture": architecture,
        "runtime": lambda_.Runtime.PROVIDED_AL2023
        if local
        else lambda_.Runtime(stage.runtime, lambda_.RuntimeFamily.PYTHON),
        "handler": HANDLER,
    }


def _environment(names: Names, stage: Stage, bucket: s3.IBucket | None) -> dict[str, str]:
    """Return the function's variables: those of the stage's settings, overridden by its ``environment``."""
    database = stage.database
    variables = {
        "STAGE": names.stage,
        "DB_SECRET_ID": database.secret,
        "DB_HOST": database.host,
        "DB_PORT": str(database.port) if database.port else None,
        "DB_NAME": database.name,
        "DB_USER": database.user,
        "DB_AUTH": database.auth if database.auth != "password" else None,
        "DB_SSLROOTCERT": CA_BUNDLE_IN_PACKAGE if database.ca_bundle else None,
        "ALEMBIC_CONFIG": stage.alembic_config,
        "ALLOW_DOWNGRADE": "true" if stage.allow_downgrade else None,
        "POWERTOOLS_SERVICE_NAME": names.telemetry_service,
        "POWERTOOLS_METRICS_NAMESPACE": names.metrics_namespace,
    }
    if stage.rollout and bucket:
        variables |= {
            "ROLLOUT": stage.rollout.as_variable,
            "ROLLOUT_BUCKET": bucket.bucket_name,
            "SERVER_CONCURRENCY": str(stage.rollout.per_server),
        }
    if stage.migrate_on_deploy:
        variables |= ROLLBACK_VARIABLES
    return {name: value for name, value in {**variables, **stage.environment}.items() if value is not None}
