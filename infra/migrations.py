"""`Migrations`: the function and its resources, as a construct for any CDK app."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk.region_info import RegionInfo
from constructs import Construct
from pydantic import ValidationError

from infra import deployment, notification
from infra.aws_rules import check_names
from infra.code import CA_BUNDLE_IN_PACKAGE, CHECKOUT, Code, build_code, function_arguments
from infra.database import Login, database_of, regions_of_the_bundle
from infra.deployment import migrate_on_deploy
from infra.errors import StageError, problem
from infra.invokers import github_role, let_roles_invoke, let_roll_out
from infra.long_runs import LongRuns, let_build, make_project
from infra.monitoring import Observed, monitor
from infra.names import Names
from infra.network import Network, attach
from infra.permissions import allow_rollouts, endpoint_policy, function_role, publish_encrypted, use_key
from infra.stages import Options
from infra.state_machine import removal_policy, rollouts_bucket, state_machine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_cdk import aws_ec2 as ec2
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3
    from aws_cdk import aws_secretsmanager as secretsmanager
    from aws_cdk import aws_stepfunctions as sfn
    from constructs import IDependable

    from infra.database import Database
    from infra.network import SecretsEndpoint, VpcAttachment

_FROM_THE_SECRET = Login()
_UNVERIFIED = frozenset({"disable", "allow", "prefer", "require"})
# Lambda's limit for all variables together, with their names.
_LARGEST_ENVIRONMENT = 4096
# Longer than the values that CloudFormation inserts for a token here: an ARN, a bucket's name, an endpoint's name.
_LONGEST_TOKEN = 150


class Migrations(Construct):
    """A function that migrates one backend's database, with its role, log, alarms, dashboard and state machine.

    ``backend`` is the backend's folder, relative to the app's working directory, or a finished package. ``prefix``,
    ``service`` and ``stage`` make every name in AWS (docs/contract.md). ``secret`` contains the login, and ``login``
    overrides it. With ``vpc`` the function runs in that VPC, and ``database`` gets an inbound rule for it: a cluster,
    an instance, a proxy, a security group, or several of them. ``key`` encrypts logs, alarms, executions and rollouts.
    ``options`` are the settings of docs/stages.md. ``aside`` gives the function another name for one deployment, which
    a change of ``packaging`` needs.

    Raises:
        StageError: an option is wrong. The message is one line with its name.
        PackageError: the backend cannot be packaged.
    """

    def __init__(  # noqa: PLR0913 - each argument is a construct or a name of the caller's app
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: str,
        backend: str | Path | Code,
        secret: secretsmanager.ISecret | None = None,
        service: str = "api",
        prefix: str = "template-saas",
        secret_key: kms.IKey | None = None,
        login: Login = _FROM_THE_SECRET,
        vpc: ec2.IVpc | None = None,
        vpc_subnets: ec2.SubnetSelection | None = None,
        database: ec2.IConnectable | Sequence[ec2.IConnectable] = (),
        database_port: int | None = None,
        secrets_endpoint: SecretsEndpoint = "create",
        s3_prefix_list: str | None = None,
        logs_endpoint: ec2.IConnectable | None = None,
        key: kms.IKey | None = None,
        aside: bool = False,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(scope, construct_id)
        # Without it, the construct of a Distributed Map uses a deprecated writer.
        self.node.set_context("@aws-cdk/aws-stepfunctions:useDistributedMapResultWriterV2", True)  # noqa: FBT003
        self._options = _checked(self, options)
        self._names = Names(prefix, service, stage, aside)
        self._key = key
        try:
            check_names(self._names)
            self._database = database_of(secret, secret_key, login)
        except StageError as error:
            raise StageError(f"{_path(self)}{error}") from None
        self._check_regions()
        _check_authorities(self, login, self._options.environment)
        databases = database if isinstance(database, Sequence) else [database]
        _check_network(
            self,
            vpc,
            {
                "vpc_subnets": vpc_subnets,
                "database_port": database_port,
                "s3_prefix_list": s3_prefix_list,
                "logs_endpoint": logs_endpoint,
                "secrets_endpoint": None if secrets_endpoint == "create" else secrets_endpoint,
            },
            databases,
        )
        network = None
        if vpc is not None:
            self._options.check_routes(
                secrets_endpoint=secrets_endpoint, s3_prefix_list=s3_prefix_list, logs_endpoint=logs_endpoint
            )
            network = Network(
                vpc,
                vpc_subnets,
                databases,
                database_port or login.port,
                secrets_endpoint,
                s3_prefix_list,
                logs_endpoint,
            )
        self._make(self._code(backend, login.ca_bundle), network, [each for each in databases if _is_construct(each)])

    def _check_regions(self) -> None:
        rollout = self._options.rollout
        arns = {
            "secret": self._database.secret_id,
            "secret_key": self._database.secret_key_arn,
            "key": self._key.key_arn if self._key else None,
            "alarms": self._options.alarms,
            "rollout.kms_key": rollout.kms_key if rollout else None,
        }
        arns |= {f"invokers.{number}": role for number, role in enumerate(self._options.invokers)}
        arns["permissions_boundary"] = self._options.permissions_boundary
        for number, target in enumerate(rollout.targets if rollout else ()):
            arns[f"rollout.targets.{number}.secret_id"] = target.secret_id
        _check_regions(self, arns)

    def _make(self, code: Code, network: Network | None, databases: Sequence[IDependable]) -> None:
        options, names = self._options, self._names
        protect = options.is_protected(names)
        # CloudFormation writes the resources in this order.
        log_group = self._log_group("Logs", names.log_group, protect=protect)
        topic = notification.topic(self, names, options.alarms, self._key)
        role = function_role(
            self, names, self._database, log_group, in_vpc=network is not None, long_runs=options.long_runs is not None
        )
        if topic and self._key:
            role.add_to_policy(publish_encrypted(self, self._key.key_arn))
        bucket = self._rollouts_bucket(role)
        attachment = attach(self, network, endpoint_policy(role, self._database, options.rollout)) if network else None
        _check_reserve(self, options)
        made = {**_of_the_bucket(options, bucket), **(attachment.variables if attachment else {})}
        variables = _environment(names, options, self._database, made)
        _check_size(self, variables)
        function = self._function(code, role, log_group, topic, variables, attachment)
        if options.long_runs:
            make_project(self, names, options, LongRuns(code, role, log_group, variables, attachment))
            cdk.CfnOutput(self, "LongRunProject", value=names.long_runs)
        self._let_invoke(function, log_group, bucket)
        machine = state_machine(self, names, options, function, bucket=bucket, key=self._key, protect=protect)
        cdk.CfnOutput(self, "StateMachineArn", value=machine.state_machine_arn)
        monitor(self, Observed(names, options, function, log_group, topic, machine))
        cdk.CfnOutput(self, "FunctionName", value=function.function_name)
        cdk.CfnOutput(self, "FunctionArn", value=function.function_arn)
        cdk.CfnOutput(self, "LogGroupName", value=log_group.log_group_name)
        tags = options.all_tags(names)
        for tag, value in tags.items():
            cdk.Tags.of(self).add(tag, value)
        self._function_made, self._machine_made = function, machine
        self._trigger: Construct | None = None
        # It waits for everything before it, so it comes last.
        if options.migrate_on_deploy:
            # The log group is deleted with the setting. A kept one would collide with the new one if the setting comes
            # back.
            others = self._migrating_beside()
            invokers = (
                self._log_group("DeploymentLogs", names.deployment_log_group, protect=False) if not others else None
            )
            self._trigger = migrate_on_deploy(self, function, options.timeout_s, invokers, tags)
            self.after(*databases, *(attachment.needs if attachment else ()))

        self._limit_roles()

    def _migrating_beside(self) -> list[Migrations]:
        """Return the constructs of this stack that share the CDK's function that invokes others in a deployment.

        Raises:
            StageError: one of them has other settings for it.
        """
        stack = cdk.Stack.of(self)
        others = []
        for each in stack.node.find_all():
            if not isinstance(each, Migrations) or each is self or cdk.Stack.of(each).node.path != stack.node.path:
                continue
            theirs = each._of_the_invoker()  # noqa: SLF001 - an object of the same class
            others += [each] if theirs else []
            for name in (name for name, value in theirs.items() if value != self._of_the_invoker()[name]):
                raise StageError(
                    f"{_path(self)}{name} differs from that of {each.node.path}: both have migrate_on_deploy, and the"
                    " CDK has one function for the whole stack that invokes them: give them the same value, or a stack"
                    " each"
                )
        return others

    def _of_the_invoker(self) -> dict[str, object]:
        """Return the settings of the function that invokes this one in a deployment, or none without one."""
        if not self._options.migrate_on_deploy:
            return {}
        return {
            "permissions_boundary": self._options.permissions_boundary,
            "log_retention_days": self._options.log_retention_days,
            "key": self._key and self._key.key_arn,
        }

    def _limit_roles(self) -> None:
        if self._options.permissions_boundary is None:
            return
        boundary = iam.ManagedPolicy.from_managed_policy_arn(self, "Boundary", self._options.permissions_boundary)
        # The function that invokes others in a deployment belongs to the stack.
        invoker = deployment.invoker(self)
        for scope in [self, *([invoker] if invoker else [])]:
            iam.PermissionsBoundary.of(scope).apply(boundary)

    @property
    def function(self) -> lambda_.Function:
        """Return the function that migrates."""
        return self._function_made

    @property
    def state_machine(self) -> sfn.StateMachine:
        """Return the state machine, which continues a migration over several function runs, and runs rollouts."""
        return self._machine_made

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a role or user to invoke the function, and so to migrate."""
        return self.function.grant_invoke(grantee)

    def after(self, *dependencies: IDependable) -> None:
        """With ``migrate_on_deploy``, migrate only after these constructs are deployed.

        The migration always waits for the database and for the rules that let the function in. For a construct that
        needs the new tables, call ``node.add_dependency(migrations)``.

        Raises:
            StageError: the stage has no ``migrate_on_deploy``.
        """
        if self._trigger is None:
            raise StageError(f"{_path(self)}after() needs migrate_on_deploy, which is false")
        self._trigger.node.add_dependency(*dependencies)

    def _code(self, backend: str | Path | Code, ca_bundle: Path | None) -> Code:
        if isinstance(backend, Code):
            return backend
        # Several constructs of one app may have the same names in different accounts.
        own = hashlib.sha256(self.node.path.encode()).hexdigest()[:8]
        out = CHECKOUT / ".local" / "package" / f"{self._names.stack}-{own}"
        code = build_code(self._options, Path(backend).resolve(), out, ca_bundle)
        for number, warning in enumerate(code.warnings, 1):
            cdk.Annotations.of(self).add_warning_v2(f"template-saas:package-{number}", warning)
        return code

    def _function(
        self,
        code: Code,
        role: iam.Role,
        log_group: logs.LogGroup,
        topic: sns.ITopic | None,
        environment: Mapping[str, str],
        attachment: VpcAttachment | None,
    ) -> lambda_.Function:
        options, names = self._options, self._names
        function = lambda_.Function(
            self,
            "Function",
            function_name=names.function,
            description=f"Migrates the database of {names.prefix} {names.service} {names.stage} with Alembic",
            role=role,
            log_group=log_group,
            # JSON also for Lambda's own lines and the trace of an error.
            logging_format=lambda_.LoggingFormat.JSON,
            # Otherwise Lambda drops lines below INFO.
            application_log_level_v2=lambda_.ApplicationLogLevel.DEBUG
            if options.environment.get("LOG_LEVEL") == "DEBUG"
            else None,
            memory_size=options.memory_mb,
            timeout=cdk.Duration.seconds(options.timeout_s),
            # A person or a pipeline must look at a failed migration; Lambda must not retry it.
            retry_attempts=0,
            # The caller of an asynchronous run does not wait for the answer.
            on_failure=_destination(self, topic, "FailedRuns") if topic else None,
            # Each version has its own settings for asynchronous runs. An execution of the state machine may still need
            # an old version, so CloudFormation keeps it. The machine deletes it later.
            current_version_options=lambda_.VersionOptions(
                retry_attempts=0,
                on_failure=_destination(self, topic, "FailedRunsOfTheVersion") if topic else None,
                removal_policy=cdk.RemovalPolicy.RETAIN,
            ),
            # Shows how the time of a run is spent, with Lambda's own start.
            tracing=lambda_.Tracing.ACTIVE,
            environment=environment,
            **function_arguments(options, code),
            **(attachment.arguments if attachment else {}),
        )
        cdk.Validations.of(function).acknowledge(
            cdk.Acknowledgment(
                id="AwsSolutions::AwsSolutions-L1",
                reason="the stage sets its runtime, and the package has wheels and bytecode for exactly that one",
            )
        )
        cdk.Annotations.of(function).acknowledge_warning(
            "@aws-cdk/aws-lambda:addPermissionsToVersionOrAlias",
            "`invokers` invoke the function as it is deployed; versions are for the state machine, whose role may",
        )
        return function

    def _log_group(self, construct_id: str, name: str, *, protect: bool) -> logs.LogGroup:
        log_group = logs.LogGroup(
            self,
            construct_id,
            log_group_name=name,
            encryption_key=self._key,
            removal_policy=removal_policy(protect=protect),
        )
        # The construct takes an enum that does not have all numbers. CloudFormation takes the number.
        cast("logs.CfnLogGroup", log_group.node.default_child).retention_in_days = self._options.log_retention_days
        return log_group

    def _rollouts_bucket(self, role: iam.Role) -> s3.Bucket | None:
        if self._options.rollout is None:
            return None
        bucket = rollouts_bucket(self, self._key)
        allow_rollouts(role, self._database, self._options.rollout, bucket)
        use_key(role, self._key, "s3")
        cdk.CfnOutput(self, "RolloutBucket", value=bucket.bucket_name)
        return bucket

    def _let_invoke(self, function: lambda_.Function, log_group: logs.LogGroup, bucket: s3.IBucket | None) -> None:
        let_roles_invoke(function, self._options.invokers)
        if self._options.github:
            github = github_role(self, self._options.github, function, log_group)
            let_roll_out(github, self._names, bucket)
            if self._options.long_runs:
                let_build(github, self._names)
            use_key(github, self._key, "states", *(["s3"] if bucket else []))
            cdk.CfnOutput(self, "GithubRoleArn", value=github.role_arn)


def _checked(scope: Construct, options: Mapping[str, Any]) -> Options:
    # `MigrateStack` passes the settings of cdk.json as any other app does. Validating them again takes 0.05 ms at most.
    try:
        return Options.model_validate(options)
    except ValidationError as error:
        raise StageError(f"{_path(scope)}{problem(error)}") from None


def _is_construct(value: object) -> bool:
    # A peer such as a CIDR is not a construct.
    return isinstance(value, Construct)


def _destination(scope: Construct, topic: sns.ITopic, construct_id: str) -> destinations.SnsDestination:
    # With the ARN only. If the construct knows the topic's key, it lets the function decrypt anything with it.
    return destinations.SnsDestination(sns.Topic.from_topic_arn(scope, construct_id, topic.topic_arn))


def _of_the_bucket(options: Options, bucket: s3.IBucket | None) -> dict[str, str]:
    if options.rollout is None or bucket is None:
        return {}
    return {
        "ROLLOUT": options.rollout.as_variable,
        "ROLLOUT_BUCKET": bucket.bucket_name,
        "SERVER_CONCURRENCY": str(options.rollout.per_server),
    }


def _environment(names: Names, options: Options, database: Database, made: Mapping[str, str]) -> dict[str, str]:
    """Return the function's variables: from the settings and the stack's resources, overridden by ``environment``."""
    login = database.login
    variables = {
        "STAGE": names.stage,
        "DB_SECRET_ID": database.secret_id,
        "DB_HOST": login.host,
        "DB_PORT": cdk.Tokenization.stringify_number(login.port) if login.port else None,
        "DB_NAME": login.name,
        "DB_USER": login.user,
        "DB_AUTH": "iam" if login.iam_resource_ids else None,
        "DB_SSLROOTCERT": CA_BUNDLE_IN_PACKAGE if login.ca_bundle else None,
        "ALEMBIC_CONFIG": options.alembic_config,
        "TARGETS_ALLOWED": options.targets_allowed_as_variable,
        "ALLOW_DOWNGRADE": "true" if options.allow_downgrade else None,
        "PREFLIGHT": options.preflight if options.preflight != "warn" else None,
        "POWERTOOLS_SERVICE_NAME": names.telemetry_service,
        "POWERTOOLS_METRICS_NAMESPACE": names.metrics_namespace,
        **made,
        **(deployment.variables(options.timeout_s) if options.migrate_on_deploy else {}),
        **options.environment,
    }
    return {name: value for name, value in variables.items() if value is not None}


def _check_reserve(scope: Construct, options: Options) -> None:
    """Refuse a reserve with which the function would answer a deployment after its invoker's timeout."""
    needed = int(deployment.variables(options.timeout_s).get("DEADLINE_RESERVE_MS", 0))
    given = options.environment.get("DEADLINE_RESERVE_MS", "")
    if options.migrate_on_deploy and given.isdecimal() and int(given) < needed:
        raise StageError(
            f"{_path(scope)}environment: with migrate_on_deploy and timeout_s {options.timeout_s}, DEADLINE_RESERVE_MS"
            f" must be at least {needed}, or the deployment would end without the migration's message: remove it, or"
            " lower timeout_s"
        )


def _check_size(scope: Construct, variables: Mapping[str, str]) -> None:
    """Refuse more variables than Lambda allows, before the deployment would fail half way."""
    known = cdk.Stack.of(scope).resolve(variables)
    sizes = {
        name: len(name.encode()) + (len(value.encode()) if isinstance(value, str) else _LONGEST_TOKEN)
        for name, value in known.items()
    }
    if sum(sizes.values()) > _LARGEST_ENVIRONMENT:
        largest = ", ".join(sorted(sizes, key=sizes.__getitem__, reverse=True)[:3])
        raise StageError(
            f"{_path(scope)}environment: the function's variables are {sum(sizes.values())} bytes, and Lambda allows"
            f" {_LARGEST_ENVIRONMENT}; the largest are {largest}"
        )


def _check_regions(scope: Construct, arns: Mapping[str, str | None]) -> None:
    """Refuse resources in another region, which the function could not use."""
    region = cdk.Stack.of(scope).region
    if cdk.Token.is_unresolved(region):
        return
    for name, arn in arns.items():
        if arn and not cdk.Token.is_unresolved(arn) and arn.startswith("arn:"):
            _, partition, service, where, *_ = arn.split(":")
            if service != "iam" and where != region:
                raise StageError(f"{_path(scope)}{name}: {arn} is not in the stage's region, {region}")
            expected = RegionInfo.get(region).partition
            # A region that this CDK does not know may belong to any partition.
            if expected and partition != expected:
                raise StageError(f"{_path(scope)}{name}: {arn} is not in the partition of {region}, {expected}")


def _check_network(
    scope: Construct, vpc: ec2.IVpc | None, given: Mapping[str, object], databases: Sequence[ec2.IConnectable]
) -> None:
    """Refuse a VPC without a database that the function may reach, and arguments for a VPC without a VPC."""
    if vpc is not None and not databases:
        raise StageError(f"{_path(scope)}database is required with vpc: the function may connect only to it")
    without = [name for name, value in given.items() if value is not None]
    if vpc is None and without:
        raise StageError(f"{_path(scope)}{without[0]} needs vpc")


def _check_authorities(scope: Construct, login: Login, environment: Mapping[str, str]) -> None:
    """Refuse a region whose RDS certificate authorities are not in the package."""
    region = cdk.Stack.of(scope).region
    other = login.ca_bundle or environment.get("DB_SSLROOTCERT") or environment.get("DB_SSLMODE") in _UNVERIFIED
    if cdk.Token.is_unresolved(region) or other or region in regions_of_the_bundle():
        return
    raise StageError(
        f"{_path(scope)}database.ca_bundle: the package has no certificate authority of RDS in {region}; docs/stages.md"
        " has the addresses to download it"
    )


def _path(scope: Construct) -> str:
    path = str(scope.node.path).removesuffix("/Default")
    return f"{path}: "
