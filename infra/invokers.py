"""Who may invoke the function beside the account's own administrators: roles, and a workflow on GitHub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from infra.permissions import allow, states_arn
from lambda_migrate.fleet.folder import HALT, ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_logs as logs
    from aws_cdk import aws_s3 as s3
    from constructs import Construct

    from infra.names import Names
    from infra.stages import GithubSettings

_GITHUB = "token.actions.githubusercontent.com"


def let_roles_invoke(function: lambda_.Function, roles: Sequence[str]) -> None:
    """Let these roles invoke the function, by the function's own policy.

    In the function's account that is enough; a role of another account needs the permission on its side, too.
    """
    for number, role in enumerate(roles):
        function.add_permission(f"Invoker{number}", principal=iam.ArnPrincipal(role), action="lambda:InvokeFunction")


def github_role(
    scope: Construct, settings: GithubSettings, function: lambda_.IFunction, log_group: logs.ILogGroup
) -> iam.Role:
    """A role for one environment of one repository on GitHub: it may invoke the function and read its log.

    GitHub's OIDC provider is one for the whole account, so it is expected there and not made here.
    """
    stack = cdk.Stack.of(scope)
    provider = stack.format_arn(service="iam", region="", resource="oidc-provider", resource_name=_GITHUB)
    role = iam.Role(
        scope,
        "GithubRole",
        description=f"Lets workflows of {settings.repository} in {settings.environment} migrate",
        # Both are equal and not alike: a pattern would let in a fork or a branch that nobody reviewed.
        assumed_by=iam.WebIdentityPrincipal(
            provider, {"StringEquals": {f"{_GITHUB}:aud": "sts.amazonaws.com", f"{_GITHUB}:sub": settings.subject}}
        ),
    )
    # A version of it, too: one that was published is invoked by its number.
    functions = [function.function_arn, f"{function.function_arn}:*"]
    allow(role, "Invoke", ["lambda:InvokeFunction"], functions, "versions get their numbers when they are published")
    role.add_to_policy(
        iam.PolicyStatement(
            sid="ReadTheLog",
            actions=["logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents"],
            resources=[log_group.log_group_arn],
        )
    )
    return role


def let_roll_out(role: iam.Role, names: Names, bucket: s3.IBucket | None) -> None:
    """Let the role start, follow and stop executions of the stage's machine, and read the reports of its rollouts."""
    stack = cdk.Stack.of(role)
    machine = states_arn(stack, "stateMachine", names.state_machine)
    executions = states_arn(stack, "execution", f"{names.state_machine}:*")
    map_runs = states_arn(stack, "mapRun", f"{names.state_machine}/*")
    reason = "executions and rollouts are named when they start"
    # The stack's outputs name the machine and the bucket.
    allow(role, "FindTheMachine", ["cloudformation:DescribeStacks"], [stack.stack_id], reason)
    allow(role, "StartRollouts", ["states:StartExecution", "states:ListExecutions"], [machine], reason)
    allow(
        role,
        "FollowRollouts",
        ["states:DescribeExecution", "states:StopExecution", "states:ListMapRuns"],
        [executions],
        reason,
    )
    allow(role, "CountRunning", ["states:DescribeMapRun"], [map_runs], reason)
    if bucket:
        objects = bucket.arn_for_objects(f"{ROOT}/*")
        allow(role, "ReadReports", ["s3:GetObject"], [objects], reason)
        allow(role, "ListOutcomes", ["s3:ListBucket"], [bucket.bucket_arn], reason)
        # The only object that the role may write. It stops the rollout.
        allow(role, "StopRollouts", ["s3:PutObject"], [bucket.arn_for_objects(f"{ROOT}/*/{HALT}")], reason)
