"""``migrate_on_deploy``: the deployment invokes the function that it has just put there, and fails where that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import aws_cdk as cdk
from aws_cdk import triggers

if TYPE_CHECKING:
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_logs as logs
    from constructs import Construct, IConstruct

# A package that is older than its database. When a deployment fails half way, CloudFormation rolls back and the old
# version is invoked again, over whatever the new one has applied: it must leave that alone instead of failing, or the
# rollback would fail, too, and the stack be stuck.
_PROVIDER = "AWSCDK.TriggerCustomResourceProviderCustomResourceProvider"
ROLLBACK_VARIABLES = {"NEWER_DATABASE": "ok"}


# Lambda's limit, which is that of what invokes the function and waits for its answer.
_LONGEST_WAIT_S = 900
# Kept back from it: both functions have to start, and the answer has to reach CloudFormation.
_RESERVE_S = 60
# As the function keeps back by itself.
_OWN_RESERVE_S = 10


def variables(timeout_s: int) -> dict[str, str]:
    """Return what the function has to know: to leave a newer database alone, and to answer while somebody waits."""
    too_late_s = max(0, timeout_s - (_LONGEST_WAIT_S - _RESERVE_S))
    if not too_late_s:
        return ROLLBACK_VARIABLES
    return {**ROLLBACK_VARIABLES, "DEADLINE_RESERVE_MS": str((_OWN_RESERVE_S + too_late_s) * 1000)}


def invoker(scope: Construct) -> IConstruct | None:
    """Return what invokes functions in a deployment of this stack, with its role, or None if nothing does."""
    return cdk.Stack.of(scope).node.try_find_child(_PROVIDER)


def migrate_on_deploy(
    scope: Construct, function: lambda_.Function, timeout_s: int, log_group: logs.ILogGroup
) -> triggers.Trigger:
    """Invoke the function's new version as the deployment's last step, whenever code or settings have changed.

    Call it last: the migration waits for everything that is in the scope by then. The rules that let the function
    reach its database are no part of the function, and would otherwise come too late. ``log_group`` is for the log of
    what invokes the function.
    """
    everything_else = list(scope.node.children)
    trigger = triggers.Trigger(scope, "MigrateOnDeploy", handler=function, timeout=cdk.Duration.seconds(timeout_s))
    trigger.node.add_dependency(*everything_else)
    # Without it CloudFormation waits for an hour if no answer comes.
    called = cast("cdk.CfnResource", cast("cdk.CustomResource", trigger.node.find_child("Default")).node.default_child)
    called.add_property_override("ServiceTimeout", str(_LONGEST_WAIT_S + _RESERVE_S))
    # The CDK's provider has no option for its log.
    handler = cdk.Stack.of(scope).node.find_child(_PROVIDER).node.find_child("Handler")
    cast("cdk.CfnResource", handler).add_property_override("LoggingConfig", {"LogGroup": log_group.log_group_name})
    return trigger
