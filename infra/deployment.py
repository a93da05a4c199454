"""``migrate_on_deploy``: the deployment invokes the new version of the function, and fails if it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import aws_cdk as cdk
from aws_cdk import triggers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_logs as logs
    from constructs import Construct, IConstruct

# If a deployment fails half way, CloudFormation rolls back and invokes the old version, on a database that the new
# version has upgraded. The old version must ignore the newer database. Otherwise the rollback would fail, too, and the
# stack would be stuck.
_PROVIDER = "AWSCDK.TriggerCustomResourceProviderCustomResourceProvider"
ROLLBACK_VARIABLES = {"NEWER_DATABASE": "ok"}


# Lambda's limit for the function that invokes the migration and waits for it.
_LONGEST_WAIT_S = 900
# Reserved for the start of both functions, and for the answer to CloudFormation.
_RESERVE_S = 60
# The function's own default.
_OWN_RESERVE_S = 10


def variables(timeout_s: int) -> dict[str, str]:
    """Return the function's variables: ignore a newer database, and answer before the invoker's timeout."""
    too_late_s = max(0, timeout_s - (_LONGEST_WAIT_S - _RESERVE_S))
    if not too_late_s:
        return ROLLBACK_VARIABLES
    return {**ROLLBACK_VARIABLES, "DEADLINE_RESERVE_MS": str((_OWN_RESERVE_S + too_late_s) * 1000)}


def invoker(scope: Construct) -> IConstruct | None:
    """Return the function that invokes others in this stack's deployment, and its role, or None if there is none."""
    return cdk.Stack.of(scope).node.try_find_child(_PROVIDER)


def migrate_on_deploy(
    scope: Construct,
    function: lambda_.Function,
    timeout_s: int,
    log_group: logs.ILogGroup | None,
    tags: Mapping[str, str],
) -> triggers.Trigger:
    """Invoke the function's new version as the last step of a deployment that changes code or settings.

    Call it last: the migration waits for everything that is in the scope at this time. The rules of the database's
    security group are not part of the function, and would otherwise come too late. ``log_group`` and ``tags`` are for
    the invoking function. ``log_group`` is None for a further migration of the same stack, which has the same function.
    """
    everything_else = list(scope.node.children)
    trigger = triggers.Trigger(scope, "MigrateOnDeploy", handler=function, timeout=cdk.Duration.seconds(timeout_s))
    trigger.node.add_dependency(*everything_else)
    # Without it, CloudFormation waits an hour for a missing answer.
    called = cast("cdk.CfnResource", cast("cdk.CustomResource", trigger.node.find_child("Default")).node.default_child)
    called.add_property_override("ServiceTimeout", str(_LONGEST_WAIT_S + _RESERVE_S))
    if log_group:
        # The CDK's provider has no option for its log, and its resources do not take part in the CDK's tagging.
        provider = cdk.Stack.of(scope).node.find_child(_PROVIDER).node
        handler, role = (cast("cdk.CfnResource", provider.find_child(name)) for name in ("Handler", "Role"))
        handler.add_property_override("LoggingConfig", {"LogGroup": log_group.log_group_name})
        for each in (handler, role):
            each.add_property_override("Tags", [{"Key": name, "Value": value} for name, value in tags.items()])
    return trigger
