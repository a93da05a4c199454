"""Invokes the function from a state machine, and continues a migration that one function run cannot finish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import aws_cdk as cdk
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks

from infra.long_runs import hand_over

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_lambda as lambda_
    from constructs import Construct

    from infra.names import Names
    from infra.stages import Options

# The constructs require a resource, but machine_role() grants the permissions.
IN_THE_ROLE = "*"
# The retries of a call to an AWS service, which may be overloaded or at the account's limit.
SERVICE_ATTEMPTS = 100
LONGEST_PAUSE_S = 60
_SECRET_ATTEMPTS = 3
# The function has answered or was killed when its timeout and this time are over.
_GRACE_S = 60
_VERSIONS_KEPT = 10


@dataclass(frozen=True)
class Retries:
    """The number of retries after a temporary error, and the first pause in seconds."""

    attempts: int
    first_s: int


class MigratingStates:
    """Makes the states that both state machines have: they invoke the function, and continue a migration."""

    def __init__(
        self,
        scope: Construct,
        names: Names,
        stage: Options,
        function: lambda_.IFunction,
        retries: Retries,
        runs: int,
    ) -> None:
        self.scope = scope
        self.names = names
        self.stage = stage
        self.function = function
        self.retries = retries
        self.runs = runs

    def invoke(self, name: str, payload: Mapping[str, Any], result_path: str) -> tasks.LambdaInvoke:
        """Return a state that invokes the function, and retries Lambda's own errors."""
        task = tasks.LambdaInvoke(
            self.scope,
            name,
            lambda_function=self.function,
            payload=sfn.TaskInput.from_object(dict(payload)),
            result_selector={"answer": sfn.JsonPath.object_at("$.Payload")},
            result_path=result_path,
            task_timeout=sfn.Timeout.duration(cdk.Duration.seconds(self.stage.timeout_s + _GRACE_S)),
            retry_on_service_exceptions=False,
        )
        # Lambda's own errors (developer guide of Step Functions, "Handle transient Lambda service exceptions"). The
        # second half are errors of a function without its network interfaces yet (Lambda's API, Invoke).
        self.retry(
            task,
            [
                "Lambda.ServiceException",
                "Lambda.AWSLambdaException",
                "Lambda.SdkClientException",
                "Lambda.ClientExecutionTimeoutException",
                "Lambda.TooManyRequestsException",
                "Lambda.ResourceNotReadyException",
                "Lambda.ENINotReadyException",
                "Lambda.ResourceConflictException",
                "Lambda.EC2ThrottledException",
                "Lambda.EC2UnexpectedException",
            ],
            Retries(SERVICE_ATTEMPTS, 2),
        )
        return task

    def retry(self, task: tasks.LambdaInvoke, errors: Sequence[str], retries: Retries) -> None:
        """Let a state retry these errors, with pauses that double up to a minute."""
        task.add_retry(
            errors=list(errors),
            max_attempts=retries.attempts,
            interval=cdk.Duration.seconds(retries.first_s),
            backoff_rate=2,
            max_delay=cdk.Duration.seconds(max(LONGEST_PAUSE_S, retries.first_s + 1)),
            # Spreads targets that failed for the same reason at the same time.
            jitter_strategy=sfn.JitterType.FULL,
        )

    def migrate(
        self, payload: Mapping[str, Any], kept: Sequence[str], *, done: sfn.IChainable, failed: sfn.IChainable
    ) -> sfn.State:
        """Return the states that upgrade one target, and end at ``done`` or ``failed``.

        Their input has ``runs`` (0), ``last_message`` (an empty text) and the fields ``kept``. ``failed`` gets the
        fields ``kept``, and ``error`` with ``Error`` and ``Cause``.
        """
        again = self.invoke("Migrate", payload, "$.run")
        self.retry(again, ["MigrationLocked", "LockTimeout", "DatabaseUnavailable"], self.retries)
        self.retry(again, ["SecretUnavailable", "BucketUnavailable"], Retries(_SECRET_ATTEMPTS, self.retries.first_s))
        fields = {name: sfn.JsonPath.object_at(f"$.{name}") for name in kept}
        # The message of MigrationIncomplete contains the progress: the database's revision, the next revision, and the
        # rows of a revision that works in batches. The same message twice in a row means no progress.
        count_run = sfn.Pass(
            self.scope,
            "Read the progress",
            parameters={
                **fields,
                "runs": sfn.JsonPath.math_add(sfn.JsonPath.number_at("$.runs"), 1),
                "last_message": sfn.JsonPath.string_at("$.last_message"),
                "error": sfn.JsonPath.object_at("$.error"),
                "cause": sfn.JsonPath.string_to_json(sfn.JsonPath.string_at("$.error.Cause")),
            },
        )
        goes_on = sfn.Pass(
            self.scope,
            "Go on from there",
            parameters={
                **fields,
                "runs": sfn.JsonPath.number_at("$.runs"),
                "last_message": sfn.JsonPath.string_at("$.cause.errorMessage"),
            },
        ).next(again)
        no_progress = self._gives_up(
            "No progress",
            fields,
            "{}. Two runs in a row made no progress: the revision needs more time than a function has. Raise"
            " `timeout_s` of the stage, set `long_runs`, split the revision, or change its rows in batches, which the"
            " next run resumes",
        ).next(failed)
        stuck: sfn.IChainable = no_progress
        if self.stage.long_runs:
            stuck = hand_over(self.scope, self.names, self.stage.long_runs, payload, fields, back=again, failed=failed)
        too_often = self._gives_up(
            "Too many runs", fields, f"{{}}. Gave up after {self.runs} runs, the limit set by `runs`"
        ).next(failed)
        moved = (
            sfn.Choice(self.scope, "Did it come further?")
            .when(sfn.Condition.string_equals_json_path("$.cause.errorMessage", "$.last_message"), stuck)
            .when(sfn.Condition.number_greater_than_equals("$.runs", self.runs), too_often)
            .otherwise(goes_on)
        )
        again.add_catch(count_run.next(moved), errors=["MigrationIncomplete"], result_path="$.error")
        again.add_catch(failed, result_path="$.error")
        again.next(done)
        return again

    def prune(self, then: sfn.State) -> sfn.State:
        """Return the states that delete the function's old versions, and then continue, even after an error.

        They keep the newest versions and the deployed one, because an execution may run for days.
        """
        if not self.stage.in_full_cloud:
            return then
        name = cast("lambda_.IVersion", self.function).lambda_.function_arn
        delete = tasks.CallAwsService(
            self.scope,
            "Delete it",
            service="lambda",
            action="deleteFunction",
            parameters={"FunctionName": name, "Qualifier": sfn.JsonPath.string_at("$.version")},
            iam_resources=[IN_THE_ROLE],
        )
        keep = sfn.Pass(self.scope, "Keep it")
        delete.add_catch(keep)
        # The list begins with $LATEST. The versions follow, oldest first.
        old = sfn.Condition.and_(
            sfn.Condition.not_(sfn.Condition.string_equals("$.version", "$LATEST")),
            sfn.Condition.number_less_than_json_path("$.at_least", "$.count"),
        )
        each = sfn.Map(
            self.scope,
            "For each version",
            items_path="$.versions",
            item_selector={
                "version": sfn.JsonPath.string_at("$$.Map.Item.Value"),
                "at_least": sfn.JsonPath.math_add(sfn.JsonPath.number_at("$$.Map.Item.Index"), _VERSIONS_KEPT),
                "count": sfn.JsonPath.array_length(sfn.JsonPath.string_at("$.versions")),
            },
        ).item_processor(sfn.Choice(self.scope, "Is it an old one?").when(old, delete).otherwise(keep))
        list_them = tasks.CallAwsService(
            self.scope,
            "List the versions",
            service="lambda",
            action="listVersionsByFunction",
            parameters={"FunctionName": name},
            iam_resources=[IN_THE_ROLE],
            result_selector={"versions": sfn.JsonPath.list_at("$.Versions[*].Version")},
        )
        prune = sfn.Parallel(self.scope, "Prune old versions", result_path=sfn.JsonPath.DISCARD)
        prune.branch(list_them.next(each))
        prune.add_catch(then, result_path=sfn.JsonPath.DISCARD)
        prune.next(then)
        return prune

    def _gives_up(self, name: str, fields: Mapping[str, Any], text: str) -> sfn.Pass:
        return sfn.Pass(
            self.scope,
            name,
            parameters={
                **fields,
                "runs": sfn.JsonPath.number_at("$.runs"),
                "error": {
                    "Error": sfn.JsonPath.string_at("$.error.Error"),
                    "Cause": sfn.JsonPath.format(text, sfn.JsonPath.string_at("$.cause.errorMessage")),
                },
            },
        )
