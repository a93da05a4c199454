"""Performs the action of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambda_migrate.invocation.loading import load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lambda_migrate.invocation.invocation import Invocation
    from lambda_migrate.invocation.result import Result

# The module of each action, which has a function of the action's name. A cold start loads only the requested one.
MODULES: Mapping[str, str] = {
    "upgrade": "lambda_migrate.actions.migrate",
    "downgrade": "lambda_migrate.actions.migrate",
    "stamp": "lambda_migrate.actions.migrate",
    "status": "lambda_migrate.actions.inspect",
    "plan": "lambda_migrate.actions.inspect",
    "check": "lambda_migrate.actions.inspect",
    "history": "lambda_migrate.actions.history",
    "doctor": "lambda_migrate.actions.doctor",
    "dangers": "lambda_migrate.actions.dangers",
    "targets": "lambda_migrate.fleet.targets",
    "record": "lambda_migrate.fleet.target",
    "ask": "lambda_migrate.fleet.approval",
    "halt": "lambda_migrate.fleet.approval",
    "report": "lambda_migrate.fleet.report",
}


def perform(invocation: Invocation) -> Result:
    """Perform the request's action and return its result.

    Raises:
        MigrationError: one of docs/contract.md#errors.
    """
    name = invocation.request.action
    action: Callable[[Invocation], Result] = getattr(load(MODULES[name]), name)
    if invocation.request.is_target_of_rollout:
        result: Result = load("lambda_migrate.fleet.target").take_part(invocation, action)
        return result
    return action(invocation)
