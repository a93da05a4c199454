"""The callers that may invoke the function: roles, and a workflow on GitHub."""

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
    from infra.settings.github import GithubSettings

_GITHUB = "token.actions.githubusercontent.com"


def let_roles_invoke(function: lambda_.Function, roles: Sequence[str]) -> None:
    """Allow these roles to invoke the function, in the function's own policy.

    That is enough for roles in the function's account. A role in another account also needs the permission there.
    """
    for number, role in enumerate(roles):
        function.add_permission(f"Invoker{number}", principal=iam.ArnPrincipal(role), action="lambda:InvokeFunction")


def github_role(
    scope: Construct, settings: GithubSettings, function: lambda_.IFunction, log_group: logs.ILogGroup
) -> iam.Role:
    """Make a role for one environment of one repository on GitHub. It may invoke the function and read its log.

    The account must already have GitHub's OIDC provider, because it can have only one.
    """
    stack = cdk.Stack.of(scope)
    provider = stack.format_arn(service="iam", region="", resource="oidc-provider", resource_name=_GITHUB)
    role = iam.Role(
        scope,
        "GithubRole",
        description=f"Lets workflows of {settings.repository} in {settings.environment} migrate",
        # Exact values only: a pattern would also match a fork or an unreviewed branch.
        assumed_by=iam.WebIdentityPrincipal(
            provider, {"StringEquals": {f"{_GITHUB}:aud": "sts.amazonaws.com", f"{_GITHUB}:sub": settings.subject}}
        ),
    )
    # Published versions, too: they are invoked by their number.
    functions = [function.function_arn, f"{function.function_arn}:*"]
    allow(
        role,
        "Invoke",
        ["lambda:InvokeFunction"],
        functions,
        "versions get their numbers when they are published",
    )
    role.add_to_policy(
        iam.PolicyStatement(
            sid="ReadTheLog",
            actions=["logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents"],
            resources=[log_group.log_group_arn],
        )
    )
    return role


def let_roll_out(role: iam.Role, names: Names, bucket: s3.IBucket | None) -> None:
    """Allow the role to start, follow and stop executions of the stage's machine, and to read its rollouts' reports."""
    stack = cdk.Stack.of(role)
    machine = states_arn(stack, "stateMachine", names.state_machine)
    executions = states_arn(stack, "execution", f"{names.state_machine}:*")
    map_runs = states_arn(stack, "mapRun", f"{names.state_machine}/*")
    reason = "executions and rollouts get their names when they start"
    # The stack's outputs contain the names of the machine and the bucket.
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
