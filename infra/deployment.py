"""``migrate_on_deploy``: the deployment invokes the function that it has just put there, and fails where that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aws_cdk as cdk
from aws_cdk import triggers

if TYPE_CHECKING:
    from aws_cdk import aws_lambda as lambda_

# A package that is older than its database. When a deployment fails half way, CloudFormation rolls back and the old
# version is invoked again, over whatever the new one has applied: it must leave that alone instead of failing, or the
# rollback would fail, too, and the stack be stuck.
ROLLBACK_VARIABLES = {"NEWER_DATABASE": "ok"}


def migrate_on_deploy(stack: cdk.Stack, function: lambda_.Function, timeout_s: int) -> None:
    """Invoke the function's new version as the deployment's last step, whenever code or settings have changed.

    Call it last: the migration waits for everything that is in the stack by then. The rules that let the function
    reach its database are no part of the function, and would otherwise come too late.
    """
    everything_else = list(stack.node.children)
    trigger = triggers.Trigger(stack, "MigrateOnDeploy", handler=function, timeout=cdk.Duration.seconds(timeout_s))
    trigger.node.add_dependency(*everything_else)
