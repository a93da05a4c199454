"""``long_runs``: a CodeBuild project that runs the function's package, and the states that start it.

It builds nothing. CodeBuild is the only AWS service that starts a container of AWS's own image in a VPC, with a role
and a time limit of hours, and that costs nothing while it is unused. ECS would need an image of ours, a cluster and a
way to a registry from the VPC. Batch needs all of that, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks

from infra.permissions import READ_PACKAGE, allow, project_arn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_cdk import aws_logs as logs
    from constructs import Construct

    from infra.code import Code
    from infra.names import Names
    from infra.network import VpcAttachment
    from infra.settings.runs import LongRunSettings
    from infra.stages import Options

# The variable that the build exports. `StartBuild` in the state machine and `BatchGetBuilds` return it.
OUTCOME = "OUTCOME"
EVENT = "LONG_RUN_EVENT"
# CodeBuild's time limit includes the provisioning of the container.
_PROVISIONING_MINUTES = 10
# The longest time that a build waits in CodeBuild's queue, if the account's other builds use its limit.
_QUEUE_MINUTES = 480
# Amazon Linux 2023, as in Lambda's runtimes from Python 3.12 on, with all their Pythons.
_IMAGES = {
    "arm64": ("ARM_CONTAINER", codebuild.LinuxArmBuildImage.AMAZON_LINUX_2023_STANDARD_3_0),
    "x86_64": ("LINUX_CONTAINER", codebuild.LinuxBuildImage.AMAZON_LINUX_2023_5),
}
# The regions with ARM (CodeBuild API reference, ProjectEnvironment). Others may have it by now.
_REGIONS_WITH_ARM = frozenset(
    {
        *("us-east-1", "us-east-2", "us-west-2", "sa-east-1", "eu-west-1", "eu-central-1"),
        *("ap-south-1", "ap-northeast-1", "ap-southeast-1", "ap-southeast-2"),
    }
)
# Temporary errors. After them, the state machine continues with function runs.
_PASSING = ("MigrationLocked", "LockTimeout", "DatabaseUnavailable", "SecretUnavailable", "BucketUnavailable")


@dataclass(frozen=True)
class LongRuns:
    """The parts of the function that the project uses."""

    code: Code
    role: iam.Role
    log_group: logs.ILogGroup
    variables: Mapping[str, str]
    attachment: VpcAttachment | None


def make_project(scope: Construct, names: Names, options: Options, runs: LongRuns) -> codebuild.CfnProject:
    """Make the project with the function's package, role, variables, log group, subnets and security group."""
    settings = cast("LongRunSettings", options.long_runs)
    # The same asset as the function's. For an image, too, the package is a folder.
    asset = s3_assets.Asset(scope, "LongRunCode", path=str(runs.code.directory), asset_hash=runs.code.digest)
    _let_role_build(scope, runs, asset)
    kind, image = _IMAGES[options.architecture]
    _warn_of_region(scope, options)
    variables = {
        **runs.variables,
        "LONG_RUN_FUNCTION": names.function,
        "LONG_RUN_TIMEOUT_S": str(settings.hours * 3600),
    }
    project = codebuild.CfnProject(
        scope,
        "LongRuns",
        name=names.long_runs,
        description=f"Runs {names.function} as a process, without Lambda's time limit",
        service_role=runs.role.role_arn,
        source=codebuild.CfnProject.SourceProperty(
            type="S3", location=f"{asset.s3_bucket_name}/{asset.s3_object_key}", build_spec=json.dumps(_spec(options))
        ),
        artifacts=codebuild.CfnProject.ArtifactsProperty(type="NO_ARTIFACTS"),
        environment=codebuild.CfnProject.EnvironmentProperty(
            type=kind,
            image=image.image_id,
            compute_type=f"BUILD_GENERAL1_{settings.compute.upper()}",
            image_pull_credentials_type="CODEBUILD",
            environment_variables=[
                codebuild.CfnProject.EnvironmentVariableProperty(name=name, value=value)
                for name, value in variables.items()
            ],
        ),
        timeout_in_minutes=settings.hours * 60 + _PROVISIONING_MINUTES,
        queued_timeout_in_minutes=_QUEUE_MINUTES,
        logs_config=codebuild.CfnProject.LogsConfigProperty(
            cloud_watch_logs=codebuild.CfnProject.CloudWatchLogsConfigProperty(
                status="ENABLED", group_name=runs.log_group.log_group_name, stream_name="long-runs"
            )
        ),
        vpc_config=_vpc_config(runs.attachment),
    )
    # CodeBuild checks at once whether the role has the permissions for a VPC.
    project.node.add_dependency(runs.role)
    cdk.Validations.of(project).acknowledge(
        cdk.Acknowledgment(
            id="AwsSolutions::AwsSolutions-CB4", reason="it writes no artifacts that a key could encrypt"
        )
    )
    return project


def _spec(options: Options) -> dict[str, Any]:
    """Return the build's commands. The build fails only if the run has no answer. A failed migration is an answer."""
    phases: dict[str, Any] = {
        "build": {
            "commands": [
                "python -m lambda_migrate --outcome outcome.json || test -s outcome.json",
                f'export {OUTCOME}="$(cat outcome.json)"',
            ]
        }
    }
    if options.in_full_cloud:
        # The package has wheels and bytecode for this Python.
        phases["install"] = {"runtime-versions": {"python": options.runtime.removeprefix("python")}}
    return {"version": "0.2", "env": {"shell": "bash", "exported-variables": [OUTCOME]}, "phases": phases}


def _vpc_config(attachment: VpcAttachment | None) -> codebuild.CfnProject.VpcConfigProperty | None:
    if attachment is None:
        return None
    return codebuild.CfnProject.VpcConfigProperty(
        vpc_id=attachment.arguments["vpc"].vpc_id,
        subnets=[subnet.subnet_id for subnet in attachment.arguments["vpc_subnets"].subnets],
        security_group_ids=[group.security_group_id for group in attachment.arguments["security_groups"]],
    )


def _let_role_build(scope: Construct, runs: LongRuns, asset: s3_assets.Asset) -> None:
    """Allow the function's role to be the build's: to read the package, and to have a network interface in a VPC."""
    stack = cdk.Stack.of(scope)
    bucket = asset.bucket
    allow(
        runs.role,
        READ_PACKAGE,
        ["s3:GetObject", "s3:GetObjectVersion"],
        [bucket.arn_for_objects(asset.s3_object_key)],
        "one object",
    )
    allow(
        runs.role,
        "FindThePackage",
        ["s3:GetBucketAcl", "s3:GetBucketLocation"],
        [bucket.bucket_arn],
        "CodeBuild looks where the bucket is",
    )
    if runs.attachment is None:
        return
    # CodeBuild user guide, "Allow a CodeBuild service role to create a VPC network interface".
    actions = [
        *(f"ec2:{what}NetworkInterface" for what in ("Create", "Delete")),
        *(f"ec2:Describe{what}" for what in ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")),
    ]
    allow(
        runs.role,
        "BePlacedInTheVpcByCodeBuild",
        actions,
        ["*"],
        "EC2 supports no narrower resource for these",
    )
    interfaces = stack.format_arn(service="ec2", resource="network-interface", resource_name="*")
    subnets = [
        stack.format_arn(service="ec2", resource="subnet", resource_name=subnet.subnet_id)
        for subnet in runs.attachment.arguments["vpc_subnets"].subnets
    ]
    allow(
        runs.role,
        "LetCodeBuildUseTheInterface",
        ["ec2:CreateNetworkInterfacePermission"],
        [interfaces],
        "network interfaces get their ids when they are made",
        {
            "StringEquals": {"ec2:AuthorizedService": "codebuild.amazonaws.com"},
            "ArnEquals": {"ec2:Subnet": subnets},
        },
    )


def _warn_of_region(scope: Construct, options: Options) -> None:
    region = cdk.Stack.of(scope).region
    if options.architecture != "arm64" or cdk.Token.is_unresolved(region) or region in _REGIONS_WITH_ARM:
        return
    cdk.Annotations.of(scope).add_warning_v2(
        "template-saas:long-runs-on-arm",
        f"long_runs: CodeBuild may not offer ARM in {region}; if the deployment fails for this reason, set the stage's"
        " architecture to x86_64",
    )


def let_machine_build(role: iam.Role, names: Names) -> None:
    """Allow the state machine to start builds, wait for them and stop them."""
    stack = cdk.Stack.of(role)
    reason = "one project"
    # The developer guide of Step Functions lists these for `startBuild.sync`.
    allow(
        role,
        "StartLongRuns",
        ["codebuild:StartBuild", "codebuild:StopBuild", "codebuild:BatchGetBuilds"],
        [project_arn(stack, names)],
        reason,
    )
    rule = stack.format_arn(
        service="events", resource="rule", resource_name="StepFunctionsGetEventForCodeBuildStartBuildRule"
    )
    allow(role, "LearnOfTheirEnd", ["events:PutTargets", "events:PutRule", "events:DescribeRule"], [rule], reason)


def let_build(role: iam.Role, names: Names) -> None:
    """Allow a role to start long runs with `migrate upgrade --long`, and to read their state."""
    arn = project_arn(cdk.Stack.of(role), names)
    allow(role, "StartLongRuns", ["codebuild:StartBuild", "codebuild:BatchGetBuilds"], [arn], "one project")


def hand_over(  # noqa: PLR0913 - the states before and after it, and their fields
    scope: Construct,
    names: Names,
    settings: LongRunSettings,
    event: Mapping[str, Any],
    kept: Mapping[str, Any],
    *,
    back: sfn.IChainable,
    failed: sfn.IChainable,
) -> sfn.State:
    """Return the states that run an event as a long run, and then go ``back`` to function runs, or to ``failed``.

    Their input has ``runs`` and the fields ``kept``, which both get. ``back`` also gets ``last_message`` as an empty
    text, and ``failed`` gets ``error``.
    """
    fields = {**kept, "runs": sfn.JsonPath.number_at("$.runs")}
    prepare = sfn.Pass(scope, "Prepare a long run", parameters={**fields, "event": dict(event)})
    text = sfn.JsonPath.json_to_string(sfn.JsonPath.object_at("$.event"))
    run = tasks.CodeBuildStartBuild(
        scope,
        "Run it without a function's limit",
        project=codebuild.Project.from_project_name(scope, "LongRunsByName", names.long_runs),
        integration_pattern=sfn.IntegrationPattern.RUN_JOB,
        environment_variables_override={EVENT: codebuild.BuildEnvironmentVariable(value=text)},
        result_selector={
            "outcome": sfn.JsonPath.string_to_json(
                sfn.JsonPath.string_at("$.Build.ExportedEnvironmentVariables[0].Value")
            )
        },
        result_path="$.long",
        task_timeout=sfn.Timeout.duration(
            cdk.Duration.minutes(settings.hours * 60 + 2 * _PROVISIONING_MINUTES + _QUEUE_MINUTES)
        ),
    )
    run.add_retry(
        errors=[
            f"CodeBuild.{name}"
            for name in ("AccountLimitExceededException", "CodeBuildException", "SdkClientException")
        ],
        max_attempts=100,
        interval=cdk.Duration.seconds(2),
        max_delay=cdk.Duration.seconds(60),
        jitter_strategy=sfn.JitterType.FULL,
    )
    no_answer = sfn.Pass(
        scope,
        "No answer of the long run",
        parameters={
            **fields,
            "error": {
                "Error": "LongRunFailed",
                "Cause": sfn.JsonPath.format(
                    f"the build of {names.long_runs} ended without an answer ({{}}): it was stopped or killed, or took"
                    f" longer than {settings.hours} hours; its log is in {names.log_group}, stream long-runs",
                    sfn.JsonPath.string_at("$.error.Error"),
                ),
            },
        },
    )
    run.add_catch(no_answer.next(failed), result_path="$.error")
    goes_on = sfn.Pass(scope, "Go on after the long run", parameters={**fields, "last_message": ""})
    goes_on.next(back)
    error = "$.long.outcome.errorType"
    gives_up = sfn.Pass(
        scope,
        "Failed in the long run",
        parameters={
            **fields,
            "error": {
                "Error": sfn.JsonPath.string_at(error),
                "Cause": sfn.JsonPath.json_to_string(sfn.JsonPath.object_at("$.long.outcome")),
            },
        },
    ).next(failed)
    passes = [sfn.Condition.string_equals(error, name) for name in _PASSING]
    how = (
        sfn.Choice(scope, "How did the long run end?")
        .when(sfn.Condition.is_not_present(error), goes_on)
        .when(sfn.Condition.or_(*passes), goes_on)
        .otherwise(gives_up)
    )
    prepare.next(run).next(how)
    return prepare
