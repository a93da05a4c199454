"""The states of a rollout: every target, wave by wave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks

from infra.states.gates import Gates
from infra.states.migrating import IN_THE_ROLE, LONGEST_PAUSE_S, SERVICE_ATTEMPTS, MigratingStates, Retries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_s3 as s3
    from constructs import Construct

    from infra.names import Names
    from infra.settings.rollout import RolloutSettings
    from infra.stages import Options


class Fleet(MigratingStates):
    """Makes the states of a stage with ``rollout``."""

    def __init__(
        self,
        scope: Construct,
        names: Names,
        stage: Options,
        settings: RolloutSettings,
        function: lambda_.IFunction,
        bucket: s3.IBucket,
    ) -> None:
        super().__init__(
            scope, names, stage, function, Retries(settings.retries, settings.retry_after_s), settings.runs
        )
        self._settings = settings
        self._bucket = bucket

    def definition(self) -> sfn.IChainable:
        """Return the first state."""
        begin = sfn.Pass(
            self.scope,
            "Begin",
            parameters={
                "input": sfn.JsonPath.object_at("$"),
                "name": sfn.JsonPath.string_at("$$.Execution.Name"),
                "latest": "",
                "at": 0,
                "problem": {},
            },
        )
        report = self._report()
        unlisted = sfn.Fail(self.scope, "Not listed", error_path="$.problem.Error", cause_path="$.problem.Cause")
        list_them = self._listing("List the targets", {"instead_of": sfn.JsonPath.string_at("$.latest")})
        list_them.add_catch(unlisted, result_path="$.problem")
        return begin.next(list_them).next(
            sfn.Choice(self.scope, "Is it the only one?")
            .when(sfn.Condition.is_present("$.listed.answer.latest"), self._other(list_them))
            .otherwise(self._waves(report))
        )

    def _listing(self, name: str, fields: Mapping[str, Any]) -> tasks.LambdaInvoke:
        """Return the state that lists the targets. ``fields`` are added to the execution and its input."""
        listing = self.invoke(
            name,
            {
                "action": "targets",
                "rollout": {
                    "name": sfn.JsonPath.string_at("$.name"),
                    "execution": sfn.JsonPath.string_at("$$.Execution.Id"),
                    "started": sfn.JsonPath.string_at("$$.Execution.StartTime"),
                    "input": sfn.JsonPath.object_at("$.input"),
                    **fields,
                },
            },
            "$.listed",
        )
        self.retry(listing, ["DatabaseUnavailable", "SecretUnavailable", "BucketUnavailable"], self.retries)
        return listing

    def _other(self, list_them: sfn.State) -> sfn.IChainable:
        """Return the states that check whether an earlier rollout still runs. If not, they list the targets again."""
        look = tasks.CallAwsService(
            self.scope,
            "Look at the other one",
            service="sfn",
            action="describeExecution",
            parameters={"ExecutionArn": sfn.JsonPath.string_at("$.listed.answer.latest")},
            iam_resources=[IN_THE_ROLE],
            result_selector={"status": sfn.JsonPath.string_at("$.Status"), "name": sfn.JsonPath.string_at("$.Name")},
            result_path="$.other",
        )
        instead = sfn.Pass(
            self.scope,
            "Begin instead of it",
            parameters={
                "input": sfn.JsonPath.object_at("$.input"),
                "name": sfn.JsonPath.string_at("$.name"),
                "latest": sfn.JsonPath.string_at("$.listed.answer.latest"),
                "at": 0,
                "problem": {},
            },
        ).next(list_them)
        look.add_retry(
            errors=["Sfn.ThrottlingException", "Sfn.SfnException", "Sfn.SdkClientException"],
            max_attempts=SERVICE_ATTEMPTS,
            max_delay=cdk.Duration.seconds(LONGEST_PAUSE_S),
            jitter_strategy=sfn.JitterType.FULL,
        )
        # Step Functions deletes executions after 90 days. The second name is that of the local cloud.
        look.add_catch(
            instead,
            errors=["Sfn.ExecutionDoesNotExistException", "Sfn.ExecutionDoesNotExist"],
            result_path="$.other",
        )
        running = sfn.Fail(
            self.scope,
            "Already running",
            error="AlreadyRunning",
            cause_path=sfn.JsonPath.format(
                "rollout {} is running; follow or stop that one", sfn.JsonPath.string_at("$.other.name")
            ),
        )
        return look.next(
            sfn.Choice(self.scope, "Does it still run?")
            .when(sfn.Condition.string_equals("$.other.status", "RUNNING"), running)
            .otherwise(instead)
        )

    def _waves(self, report: sfn.State) -> sfn.IChainable:
        """Return the states that migrate wave after wave, then the targets that were created meanwhile."""
        kept = {name: sfn.JsonPath.object_at(f"$.{name}") for name in ("input", "name", "listed", "problem")}
        more = sfn.Choice(self.scope, "Is there another wave?")
        take = sfn.Pass(
            self.scope,
            "Take the next wave",
            parameters={
                **kept,
                "at": sfn.JsonPath.math_add(sfn.JsonPath.number_at("$.at"), 1),
                "wave": sfn.JsonPath.array_get_item(
                    sfn.JsonPath.list_at("$.listed.answer.waves"), sfn.JsonPath.number_at("$.at")
                ),
            },
        )
        migrate = self._wave()
        migrate.add_catch(report, result_path="$.problem")
        settings = self._settings
        gates = Gates(self, settings, self._bucket, report)
        halted = gates.look_whether_halted("Look whether it is halted")
        has_gates = settings.between_waves or settings.between_groups or settings.soak_s
        take.next(gates.gate(kept, migrate) if has_gates else migrate)
        migrate.next(halted).next(
            sfn.Choice(self.scope, "Does it go on?").when(gates.is_halted(), report).otherwise(more)
        )
        # Targets that were created during the rollout are one more wave.
        list_again = self._listing("List the new targets", {"again": True})
        list_again.add_catch(report, result_path="$.problem")
        new_ones = sfn.Pass(self.scope, "Begin with the new ones", parameters={**kept, "at": 0}).next(more)
        # After a redrive, another rollout may have begun. Then the answer names that one and has no waves.
        list_again.next(
            sfn.Choice(self.scope, "Is it still the only one?")
            .when(sfn.Condition.is_present("$.listed.answer.last"), new_ones)
            .otherwise(report)
        )
        return (
            more.when(sfn.Condition.number_less_than_json_path("$.at", "$.listed.answer.last"), take)
            .when(sfn.Condition.boolean_equals("$.listed.answer.again", value=True), list_again)
            .otherwise(report)
        )

    def _wave(self) -> sfn.DistributedMap:
        # The local cloud supports only the number; with a path, it limits nothing.
        concurrency: dict[str, Any] = (
            {"max_concurrency_path": "$.wave.concurrency"}
            if self.stage.in_full_cloud
            else {"max_concurrency": self._settings.concurrency}
        )
        wave = sfn.DistributedMap(
            self.scope,
            "Migrate the wave",
            label="Targets",
            map_execution_type=sfn.StateMachineType.STANDARD,
            item_reader=sfn.S3JsonItemReader(bucket=self._bucket, key=sfn.JsonPath.string_at("$.wave.key")),
            item_selector={
                "item": sfn.JsonPath.object_at("$$.Map.Item.Value"),
                "name": sfn.JsonPath.string_at("$.name"),
                "action": sfn.JsonPath.string_at("$.listed.answer.run"),
                "package": sfn.JsonPath.string_at("$.listed.answer.package"),
                "runs": 0,
                "last_message": "",
                # Initial value of the "busy" counter; the function returns the next value.
                "run": {"answer": {"looks": 0}},
            },
            # Otherwise all answers together would have to fit into 256 KB.
            result_writer_v2=sfn.ResultWriterV2(bucket=self._bucket, prefix="map-runs"),
            result_path=sfn.JsonPath.DISCARD,
            **concurrency,
        )
        wave.item_processor(
            self._target(), mode=sfn.ProcessorMode.DISTRIBUTED, execution_type=sfn.ProcessorType.STANDARD
        )
        cdk.Annotations.of(wave).acknowledge_warning(
            "@aws-cdk/aws-stepfunctions:propertyIgnored", "the processor must have a type, and the map decides which"
        )
        return wave

    def _target(self) -> sfn.IChainable:
        """Return the states that migrate one target and record its outcome. Only a failed record ends the wave."""
        part = {
            "name": sfn.JsonPath.string_at("$.name"),
            "item": sfn.JsonPath.object_at("$.item"),
            "runs": sfn.JsonPath.number_at("$.runs"),
        }
        # In the local cloud, a child execution has the start time of its parent.
        began = {"began": sfn.JsonPath.string_at("$$.Execution.StartTime")} if self.stage.in_full_cloud else {}
        record = self.invoke(
            "Record the failure",
            {"action": "record", "rollout": {**part, **began, "error": sfn.JsonPath.object_at("$.error")}},
            "$.run",
        )
        self.retry(record, ["BucketUnavailable"], self.retries)
        over = sfn.Pass(self.scope, "Done", parameters={"outcome": sfn.JsonPath.string_at("$.run.answer.outcome")})
        record.next(over)
        wait = sfn.Wait(
            self.scope, "Wait for room on its server", time=sfn.WaitTime.seconds_path("$.run.answer.wait_s")
        )
        room = (
            sfn.Choice(self.scope, "Was there room on its server?")
            .when(sfn.Condition.string_equals("$.run.answer.outcome", "busy"), wait)
            .otherwise(over)
        )
        migrate = self.migrate(
            {
                "action": sfn.JsonPath.string_at("$.action"),
                "target": sfn.JsonPath.object_at("$.item.target"),
                "rollout": {
                    **part,
                    "looks": sfn.JsonPath.number_at("$.run.answer.looks"),
                    "package": sfn.JsonPath.string_at("$.package"),
                },
            },
            ("item", "name", "action", "run", "package"),
            done=room,
            failed=record,
        )
        wait.next(migrate)
        return migrate

    def _report(self) -> sfn.State:
        report = self.invoke(
            "Write the report",
            {
                "action": "report",
                "rollout": {"name": sfn.JsonPath.string_at("$.name"), "problem": sfn.JsonPath.object_at("$.problem")},
            },
            "$.report",
        )
        self.retry(report, ["BucketUnavailable"], self.retries)
        message = "$.report.answer.rollout.message"
        ended = (
            sfn.Choice(self.scope, "How did it end?")
            .when(
                sfn.Condition.string_equals("$.report.answer.rollout.status", "succeeded"),
                sfn.Succeed(self.scope, "Rolled out", output_path="$.report.answer"),
            )
            .when(
                sfn.Condition.string_equals("$.report.answer.rollout.status", "stopped"),
                sfn.Fail(self.scope, "Stopped", error="RolloutStopped", cause_path=message),
            )
            .otherwise(sfn.Fail(self.scope, "Failed", error="RolloutFailed", cause_path=message))
        )
        report.next(self.prune(ended))
        return report
