"""The states between two waves of a rollout: a pause, an alarm that stops it, and an approval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks

from infra.states.migrating import IN_THE_ROLE
from lambda_migrate.fleet.folder import HALT, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_cdk import aws_s3 as s3

    from infra.settings.rollout import RolloutSettings
    from infra.states.migrating import MigratingStates


class Gates:
    """Makes these states. All of them go to ``report`` if the rollout is halted."""

    def __init__(
        self, states: MigratingStates, settings: RolloutSettings, bucket: s3.IBucket, report: sfn.State
    ) -> None:
        self._states = states
        self._settings = settings
        self._bucket = bucket
        self._report = report

    def gate(self, kept: Mapping[str, Any], migrate: sfn.State) -> sfn.State:
        """Return the states before a wave: a pause, in which a stop or an alarm ends the rollout, then an approval."""
        approval = (
            sfn.Choice(self._states.scope, "Is an approval needed?")
            .when(sfn.Condition.string_equals("$.wave.gate", "approval"), self._approval(migrate))
            .otherwise(migrate)
        )
        begin = self._looks_left("Begin the pause", kept, sfn.JsonPath.number_at("$.wave.looks"))
        pause = sfn.Wait(self._states.scope, "Pause", time=sfn.WaitTime.seconds_path("$.wave.look_s"))
        halted = self.look_whether_halted("Look whether it was halted meanwhile")
        one_less = sfn.JsonPath.math_add(sfn.JsonPath.number_at("$.looks"), -1)
        count = self._looks_left("Count the look", kept, one_less)
        is_over = sfn.Choice(self._states.scope, "Is the pause over?")
        goes_on = self._soak(count) if self._settings.soak_alarm else count
        begin.next(is_over)
        pause.next(halted).next(
            sfn.Choice(self._states.scope, "Does it still go on?")
            .when(self.is_halted(), self._report)
            .otherwise(goes_on)
        )
        count.next(is_over)
        is_over.when(sfn.Condition.number_greater_than("$.looks", 0), pause).otherwise(approval)
        return begin

    def _looks_left(self, name: str, kept: Mapping[str, Any], looks: object) -> sfn.Pass:
        """Return a state that sets the number of looks that are left in the pause."""
        at, wave = sfn.JsonPath.number_at("$.at"), sfn.JsonPath.object_at("$.wave")
        return sfn.Pass(self._states.scope, name, parameters={**kept, "at": at, "wave": wave, "looks": looks})

    def _soak(self, goes_on: sfn.State) -> sfn.State:
        """Return the states that read ``soak_alarm`` after the canaries. An alarm that does not exist stops, too."""
        alarm = tasks.CallAwsService(
            self._states.scope,
            "Look at the alarm",
            service="cloudwatch",
            action="describeAlarms",
            parameters={"AlarmNames": [self._settings.soak_alarm], "AlarmTypes": ["MetricAlarm", "CompositeAlarm"]},
            iam_resources=[IN_THE_ROLE],
            result_selector={"found": sfn.JsonPath.object_at("$")},
            result_path="$.alarm",
        )
        alarm.add_retry(max_attempts=5, jitter_strategy=sfn.JitterType.FULL)
        stop = self._halt("Stop for the alarm", f"alarm {self._settings.soak_alarm} is on, or does not exist")
        alarm.add_catch(stop, result_path="$.ignored")
        # Metric alarms and composite alarms share their names.
        is_off = [
            sfn.Condition.and_(
                sfn.Condition.is_present(state), sfn.Condition.not_(sfn.Condition.string_equals(state, "ALARM"))
            )
            for state in (f"$.alarm.found.{kind}Alarms[0].StateValue" for kind in ("Metric", "Composite"))
        ]
        look = (
            sfn.Choice(self._states.scope, "Is the alarm off?")
            .when(sfn.Condition.or_(*is_off), goes_on)
            .otherwise(stop)
        )
        return (
            sfn.Choice(self._states.scope, "Do the canaries soak?")
            .when(sfn.Condition.boolean_equals("$.wave.soaks", value=True), alarm.next(look))
            .otherwise(goes_on)
        )

    def _approval(self, migrate: sfn.State) -> sfn.State:
        """Return the states that wait for `migrate rollout approve`, for a stop, or until `approval_hours` are over."""
        hours = self._settings.approval_hours
        wait = tasks.LambdaInvoke(
            self._states.scope,
            "Wait for the approval",
            lambda_function=self._states.function,
            integration_pattern=sfn.IntegrationPattern.WAIT_FOR_TASK_TOKEN,
            payload=sfn.TaskInput.from_object(
                {
                    "action": "ask",
                    "rollout": {
                        "name": sfn.JsonPath.string_at("$.name"),
                        "key": sfn.JsonPath.string_at("$.wave.key"),
                        "token": sfn.JsonPath.task_token,
                    },
                }
            ),
            result_path=sfn.JsonPath.DISCARD,
            task_timeout=sfn.Timeout.duration(cdk.Duration.hours(hours)),
            retry_on_service_exceptions=False,
        )
        late = self._halt("Nobody approved it", f"nobody approved the next wave within {hours} hours")
        wait.add_catch(late, errors=["States.Timeout"], result_path="$.ignored")
        # `migrate rollout stop` sends this error after it has halted the rollout.
        stopped = sfn.Pass(self._states.scope, "Not approved", result_path=sfn.JsonPath.DISCARD).next(self._report)
        wait.add_catch(stopped, errors=["RolloutStopped"], result_path="$.ignored")
        wait.add_catch(self._report, result_path="$.problem")
        halted = self.look_whether_halted("Look whether it was halted before the approval")
        wait.next(halted).next(
            sfn.Choice(self._states.scope, "Was it approved?").when(self.is_halted(), self._report).otherwise(migrate)
        )
        return wait

    def look_whether_halted(self, name: str) -> tasks.CallAwsService:
        """Return the state that looks for the object which halts the rollout."""
        halted = tasks.CallAwsService(
            self._states.scope,
            name,
            service="s3",
            action="listObjectsV2",
            parameters={
                "Bucket": self._bucket.bucket_name,
                "Prefix": sfn.JsonPath.format(f"{ROOT}/{{}}/{HALT}", sfn.JsonPath.string_at("$.name")),
                "MaxKeys": 1,
            },
            iam_resources=[IN_THE_ROLE],
            result_selector={"found": sfn.JsonPath.object_at("$")},
            result_path="$.halt",
        )
        halted.add_retry(max_attempts=5, jitter_strategy=sfn.JitterType.FULL)
        halted.add_catch(self._report, result_path="$.problem")
        return halted

    def _halt(self, name: str, message: str) -> sfn.State:
        halt = self._states.invoke(
            name,
            {"action": "halt", "rollout": {"name": sfn.JsonPath.string_at("$.name"), "message": message}},
            "$.ignored",
        )
        self._states.retry(halt, ["BucketUnavailable"], self._states.retries)
        halt.add_catch(self._report, result_path="$.problem")
        halt.next(self._report)
        return halt

    def is_halted(self) -> sfn.Condition:
        """Return the condition after `look_whether_halted`."""
        # S3 lists the exact key before longer ones. Another key, such as halt.json.bak, does not halt.
        first = "$.halt.found.Contents[0].Key"
        return sfn.Condition.and_(sfn.Condition.is_present(first), sfn.Condition.string_matches(first, f"*/{HALT}"))
