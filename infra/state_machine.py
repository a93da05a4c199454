"""The stage's state machine: a migration that goes on by itself, and with ``rollout`` in the settings one of a fleet.

Limits of AWS that shape it (Step Functions developer guide, "Service quotas"): 25,000 events of history an execution,
256 KB from state to state, 10,000 children of a Distributed Map at once. So a fleet's targets are items of an object in
S3, each is an execution of its own, and what passes between states is small.

Whether a rollout still goes on is decided in `lambda_migrate.fleet`, before each target, and not by the Map's own
threshold: AWS ends the children that run when a Map Run passes it, and what they did would be lost to the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import aws_cdk as cdk
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks

from infra.long_runs import hand_over, let_machine_build
from infra.permissions import encrypt_executions, machine_role, use_key
from infra.snapshots import let_machine_snapshot, snapshot_first
from lambda_migrate.fleet.folder import HALT, ROOT
from lambda_migrate.invocation.request import ROLLOUT_INPUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_lambda as lambda_
    from constructs import Construct

    from infra.names import Names
    from infra.stages import Options, RolloutSettings

KEPT_DAYS = 90
# What a construct asks for; the role is not changed by it.
_IN_THE_ROLE = "*"
# How often the state machine asks Lambda itself again, which may be overloaded or at its account's limit.
_SERVICE_ATTEMPTS = 100
_SECRET_ATTEMPTS = 3
# Beyond the function's own timeout there is no answer any more.
_GRACE_S = 60
_LONGEST_PAUSE_S = 60
_RUNS = 100
_VERSIONS_KEPT = 10


@dataclass(frozen=True)
class Retries:
    """How often an error that passes is met by trying again, and after how many seconds for the first time."""

    attempts: int
    first_s: int


def removal_policy(*, protect: bool) -> cdk.RemovalPolicy:
    """What becomes of a log when its stack is deleted. A failed first deployment leaves none, so it can be repeated."""
    return cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if protect else cdk.RemovalPolicy.DESTROY


def rollouts_bucket(scope: Construct, key: kms.IKey | None) -> s3.Bucket:
    """Where a rollout's targets, outcomes and report are. It outlives the stack: it is the record of what was done."""
    bucket = s3.Bucket(
        scope,
        "Rollouts",
        encryption=s3.BucketEncryption.KMS if key else s3.BucketEncryption.S3_MANAGED,
        encryption_key=key,
        bucket_key_enabled=True if key else None,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        lifecycle_rules=[
            s3.LifecycleRule(
                # The name of an execution can be given again after as many days.
                expiration=cdk.Duration.days(KEPT_DAYS),
                abort_incomplete_multipart_upload_after=cdk.Duration.days(1),
            )
        ],
        # Not what a failed first deployment has made, so that it can be repeated.
        removal_policy=cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
    )
    # Without its policy the bucket would answer without TLS.
    cast("s3.BucketPolicy", bucket.policy).apply_removal_policy(cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
    cdk.Validations.of(bucket).acknowledge(
        cdk.Acknowledgment(
            id="AwsSolutions::AwsSolutions-S1",
            reason="it holds names of tenants and errors for 90 days; CloudTrail can tell who reads them",
        )
    )
    return bucket


def state_machine(  # noqa: PLR0913 - what a stage's machine is made of
    scope: Construct,
    names: Names,
    stage: Options,
    function: lambda_.Function,
    *,
    bucket: s3.IBucket | None,
    key: kms.IKey | None,
    protect: bool,
) -> sfn.StateMachine:
    """Make the machine: over the targets of ``rollout``, whose objects are in the bucket, or for the one database.

    It names the version of the function that is deployed with it. An execution goes on with the definition that it
    began with, so all that belongs to one runs the same code, whatever is deployed meanwhile.
    """
    # The local cloud's tests change the function's settings between two runs, which no version has.
    invoked: lambda_.IFunction = function.current_version if stage.in_full_cloud else function
    log_group = logs.LogGroup(
        scope,
        "RolloutLogs",
        # Log groups that services write to have this prefix: the policy that lets them has a limited size.
        log_group_name=names.state_machine_log_group,
        encryption_key=key,
        removal_policy=removal_policy(protect=protect),
    )
    cast("logs.CfnLogGroup", log_group.node.default_child).retention_in_days = stage.log_retention_days
    if stage.rollout is None or bucket is None:
        definition: sfn.IChainable = _Alone(scope, names, stage, invoked).definition()
    else:
        definition = _Fleet(scope, names, stage, stage.rollout, invoked, bucket).definition()
    reads_alarms = stage.rollout is not None and stage.rollout.soak_alarm is not None
    role = machine_role(scope, names, function, bucket, reads_alarms=reads_alarms)
    if stage.long_runs:
        let_machine_build(role, names)
    if stage.snapshot:
        let_machine_snapshot(role, names, stage.snapshot)
    if bucket:
        use_key(role, key, "s3")
    if key:
        encrypt_executions(role, names, key)
    machine = sfn.StateMachine(
        scope,
        "StateMachine",
        state_machine_name=names.state_machine,
        comment=f"Migrates {names.prefix} {names.service} {names.stage}, beyond the time that one function has",
        definition_body=sfn.DefinitionBody.from_chainable(definition),
        # The constructs would add more than it needs, such as every object of the bucket.
        role=role.without_policy_updates(),
        encryption_configuration=sfn.CustomerManagedEncryptionConfiguration(key) if key else None,
        tracing_enabled=True,
        logs=sfn.LogOptions(destination=log_group, level=sfn.LogLevel.ALL),
    )
    # Remove the construct's policy: machine_role() already grants the same by name.
    machine.node.try_remove_child("DistributedMapPolicy")
    return machine


class _Machine:
    """What both kinds of machine are made of: invoking the function, and going on after MigrationIncomplete."""

    def __init__(
        self,
        scope: Construct,
        names: Names,
        stage: Options,
        function: lambda_.IFunction,
        retries: Retries,
        runs: int,
    ) -> None:
        self._scope = scope
        self._names = names
        self._stage = stage
        self._function = function
        self._retries = retries
        self._runs = runs

    def _invoke(self, name: str, payload: Mapping[str, Any], result_path: str) -> tasks.LambdaInvoke:
        task = tasks.LambdaInvoke(
            self._scope,
            name,
            lambda_function=self._function,
            payload=sfn.TaskInput.from_object(dict(payload)),
            result_selector={"answer": sfn.JsonPath.object_at("$.Payload")},
            result_path=result_path,
            task_timeout=sfn.Timeout.duration(cdk.Duration.seconds(self._stage.timeout_s + _GRACE_S)),
            retry_on_service_exceptions=False,
        )
        # Lambda's own errors (developer guide of Step Functions, "Handle transient Lambda service exceptions"). Those
        # in the second half are of a function that waits for its network interfaces (Lambda's API, Invoke).
        self._again(
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
            Retries(_SERVICE_ATTEMPTS, 2),
        )
        return task

    def _again(self, task: tasks.LambdaInvoke, errors: Sequence[str], retries: Retries) -> None:
        task.add_retry(
            errors=list(errors),
            max_attempts=retries.attempts,
            interval=cdk.Duration.seconds(retries.first_s),
            backoff_rate=2,
            max_delay=cdk.Duration.seconds(max(_LONGEST_PAUSE_S, retries.first_s + 1)),
            # Those that met the same obstacle must not come back to it together.
            jitter_strategy=sfn.JitterType.FULL,
        )

    def _migrate(
        self, payload: Mapping[str, Any], kept: Sequence[str], *, done: sfn.IChainable, failed: sfn.IChainable
    ) -> sfn.State:
        """The states that bring one target to head; ``kept`` are the fields of their input that ``failed`` wants.

        The input has ``runs``, 0, and ``said``, an empty text. `failed` finds ``Error`` and ``Cause`` in ``error``.
        """
        again = self._invoke("Migrate", payload, "$.run")
        self._again(again, ["MigrationLocked", "LockTimeout", "DatabaseUnavailable"], self._retries)
        self._again(again, ["SecretUnavailable", "BucketUnavailable"], Retries(_SECRET_ATTEMPTS, self._retries.first_s))
        fields = {name: sfn.JsonPath.object_at(f"$.{name}") for name in kept}
        # What the function says when it has run out of time tells how far it came: the revision that the database is
        # at, the one that is next, and of one that works in batches the rows. The same twice is no progress.
        count_run = sfn.Pass(
            self._scope,
            "Hear how far it came",
            parameters={
                **fields,
                "runs": sfn.JsonPath.math_add(sfn.JsonPath.number_at("$.runs"), 1),
                "said": sfn.JsonPath.string_at("$.said"),
                "error": sfn.JsonPath.object_at("$.error"),
                "told": sfn.JsonPath.string_to_json(sfn.JsonPath.string_at("$.error.Cause")),
            },
        )
        goes_on = sfn.Pass(
            self._scope,
            "Go on from there",
            parameters={
                **fields,
                "runs": sfn.JsonPath.number_at("$.runs"),
                "said": sfn.JsonPath.string_at("$.told.errorMessage"),
            },
        ).next(again)
        no_progress = self._gives_up(
            "No progress",
            fields,
            "{}. Twice it came no further: the revision needs more time than a function has. Raise timeout_s"
            " of the stage, set `long_runs`, split the revision, or let it change its rows in batches, which are"
            " resumed",
        ).next(failed)
        stuck: sfn.IChainable = no_progress
        if self._stage.long_runs:
            stuck = hand_over(
                self._scope, self._names, self._stage.long_runs, payload, fields, back=again, failed=failed
            )
        too_often = self._gives_up(
            "Too many runs", fields, f"{{}}. Gave up after {self._runs} runs, the limit set by `runs`"
        ).next(failed)
        moved = (
            sfn.Choice(self._scope, "Did it come further?")
            .when(sfn.Condition.string_equals_json_path("$.told.errorMessage", "$.said"), stuck)
            .when(sfn.Condition.number_greater_than_equals("$.runs", self._runs), too_often)
            .otherwise(goes_on)
        )
        again.add_catch(count_run.next(moved), errors=["MigrationIncomplete"], result_path="$.error")
        again.add_catch(failed, result_path="$.error")
        again.next(done)
        return again

    def _prune(self, then: sfn.State) -> sfn.State:
        """Delete the function's old versions, then go on. What goes wrong here is no reason to fail.

        An execution may run for days, so the newest versions are kept, beside the one that is deployed.
        """
        if not self._stage.in_full_cloud:
            return then
        name = cast("lambda_.IVersion", self._function).lambda_.function_arn
        delete = tasks.CallAwsService(
            self._scope,
            "Delete it",
            service="lambda",
            action="deleteFunction",
            parameters={"FunctionName": name, "Qualifier": sfn.JsonPath.string_at("$.version")},
            iam_resources=[_IN_THE_ROLE],
        )
        keep = sfn.Pass(self._scope, "Keep it")
        delete.add_catch(keep)
        # The list begins with $LATEST, then come the versions, oldest first.
        old = sfn.Condition.and_(
            sfn.Condition.not_(sfn.Condition.string_equals("$.version", "$LATEST")),
            sfn.Condition.number_less_than_json_path("$.at_least", "$.count"),
        )
        each = sfn.Map(
            self._scope,
            "For each version",
            items_path="$.versions",
            item_selector={
                "version": sfn.JsonPath.string_at("$$.Map.Item.Value"),
                "at_least": sfn.JsonPath.math_add(sfn.JsonPath.number_at("$$.Map.Item.Index"), _VERSIONS_KEPT),
                "count": sfn.JsonPath.array_length(sfn.JsonPath.string_at("$.versions")),
            },
        ).item_processor(sfn.Choice(self._scope, "Is it an old one?").when(old, delete).otherwise(keep))
        list_them = tasks.CallAwsService(
            self._scope,
            "List the versions",
            service="lambda",
            action="listVersionsByFunction",
            parameters={"FunctionName": name},
            iam_resources=[_IN_THE_ROLE],
            result_selector={"versions": sfn.JsonPath.list_at("$.Versions[*].Version")},
        )
        prune = sfn.Parallel(self._scope, "Prune old versions", result_path=sfn.JsonPath.DISCARD)
        prune.branch(list_them.next(each))
        prune.add_catch(then, result_path=sfn.JsonPath.DISCARD)
        prune.next(then)
        return prune

    def _gives_up(self, name: str, fields: Mapping[str, Any], text: str) -> sfn.Pass:
        return sfn.Pass(
            self._scope,
            name,
            parameters={
                **fields,
                "runs": sfn.JsonPath.number_at("$.runs"),
                "error": {
                    "Error": sfn.JsonPath.string_at("$.error.Error"),
                    "Cause": sfn.JsonPath.format(text, sfn.JsonPath.string_at("$.told.errorMessage")),
                },
            },
        )


class _Alone(_Machine):
    """The machine of a stage without ``rollout``: the stage's own database."""

    def __init__(self, scope: Construct, names: Names, stage: Options, function: lambda_.IFunction) -> None:
        super().__init__(scope, names, stage, function, Retries(attempts=10, first_s=5), _RUNS)

    def definition(self) -> sfn.IChainable:
        # Otherwise an input that asks for a plan, or to take something back, would upgrade the database.
        refused = sfn.Fail(
            self._scope,
            "Refuse the input",
            error="InvalidRequest",
            cause="the stage has no targets, so its machine takes no input: it upgrades the stage's own database",
        )
        given = [sfn.Condition.is_present(f"$.{name}") for name in ROLLOUT_INPUT]
        return (
            sfn.Choice(self._scope, "Is there an input?")
            .when(sfn.Condition.or_(*given), refused)
            .otherwise(self._migration())
        )

    def _migration(self) -> sfn.IChainable:
        begin = sfn.Pass(self._scope, "Begin", parameters={"runs": 0, "said": ""})
        done = self._prune(sfn.Succeed(self._scope, "Migrated", output_path="$.run.answer"))
        failed = sfn.Fail(self._scope, "Not migrated", error_path="$.error.Error", cause_path="$.error.Cause")
        if self._stage.snapshot is None:
            return begin.next(self._migrate({"action": "upgrade"}, (), done=done, failed=failed))
        event = {"action": "upgrade", "snapshot": sfn.JsonPath.string_at("$.snapshot")}
        migrate = self._migrate(event, ("snapshot",), done=done, failed=failed)
        # It has to be a rollout's, as only the state machine may ask.
        asked = {"action": "dangers", "rollout": {"name": sfn.JsonPath.string_at("$$.Execution.Name")}}
        look = self._invoke("See whether it is dangerous", asked, "$.look")
        self._again(look, ["DatabaseUnavailable", "SecretUnavailable"], self._retries)
        return begin.next(
            snapshot_first(self._scope, self._names, self._stage.snapshot, look=look, then=migrate, failed=failed)
        )


class _Fleet(_Machine):
    """The machine of a stage with ``rollout``: every target, wave by wave."""

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
        begin = sfn.Pass(
            self._scope,
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
        unlisted = sfn.Fail(self._scope, "Not listed", error_path="$.problem.Error", cause_path="$.problem.Cause")
        list_them = self._listing("List the targets", {"instead_of": sfn.JsonPath.string_at("$.latest")})
        list_them.add_catch(unlisted, result_path="$.problem")
        return begin.next(list_them).next(
            sfn.Choice(self._scope, "Is it the only one?")
            .when(sfn.Condition.is_present("$.listed.answer.latest"), self._other(list_them))
            .otherwise(self._waves(report))
        )

    def _listing(self, name: str, fields: Mapping[str, Any]) -> tasks.LambdaInvoke:
        """The state that lists the targets; ``fields`` are those beside the execution and its input."""
        listing = self._invoke(
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
        self._again(listing, ["DatabaseUnavailable", "SecretUnavailable", "BucketUnavailable"], self._retries)
        return listing

    def _other(self, list_them: sfn.State) -> sfn.IChainable:
        """Another rollout began before: look whether it still runs, and list instead of it when it does not."""
        look = tasks.CallAwsService(
            self._scope,
            "Look at the other one",
            service="sfn",
            action="describeExecution",
            parameters={"ExecutionArn": sfn.JsonPath.string_at("$.listed.answer.latest")},
            iam_resources=[_IN_THE_ROLE],
            result_selector={"status": sfn.JsonPath.string_at("$.Status"), "name": sfn.JsonPath.string_at("$.Name")},
            result_path="$.other",
        )
        instead = sfn.Pass(
            self._scope,
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
            max_attempts=_SERVICE_ATTEMPTS,
            max_delay=cdk.Duration.seconds(_LONGEST_PAUSE_S),
            jitter_strategy=sfn.JitterType.FULL,
        )
        # Executions are forgotten after 90 days. The second name is the local cloud's.
        look.add_catch(
            instead,
            errors=["Sfn.ExecutionDoesNotExistException", "Sfn.ExecutionDoesNotExist"],
            result_path="$.other",
        )
        running = sfn.Fail(
            self._scope,
            "Already running",
            error="AlreadyRunning",
            cause_path=sfn.JsonPath.format(
                "rollout {} is at work; follow or stop that one", sfn.JsonPath.string_at("$.other.name")
            ),
        )
        return look.next(
            sfn.Choice(self._scope, "Does it still run?")
            .when(sfn.Condition.string_equals("$.other.status", "RUNNING"), running)
            .otherwise(instead)
        )

    def _waves(self, report: sfn.State) -> sfn.IChainable:
        """One wave after the other, until there is none left or the rollout is halted; then the new targets' one."""
        kept = {name: sfn.JsonPath.object_at(f"$.{name}") for name in ("input", "name", "listed", "problem")}
        more = sfn.Choice(self._scope, "Is there another wave?")
        take = sfn.Pass(
            self._scope,
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
        halted = self._look_whether_halted("Look whether it is halted", report)
        settings = self._settings
        has_gates = settings.between_waves or settings.between_groups or settings.soak_s
        take.next(self._gate(kept, migrate, report) if has_gates else migrate)
        migrate.next(halted).next(
            sfn.Choice(self._scope, "Does it go on?").when(self._is_halted(), report).otherwise(more)
        )
        # Tenants that were created while the rollout ran are one more wave.
        list_again = self._listing("List the new targets", {"again": True})
        list_again.add_catch(report, result_path="$.problem")
        new_ones = sfn.Pass(self._scope, "Begin with the new ones", parameters={**kept, "at": 0}).next(more)
        # After a redrive, another rollout may have begun. Then the answer names that one and has no waves.
        list_again.next(
            sfn.Choice(self._scope, "Is it still the only one?")
            .when(sfn.Condition.is_present("$.listed.answer.last"), new_ones)
            .otherwise(report)
        )
        return (
            more.when(sfn.Condition.number_less_than_json_path("$.at", "$.listed.answer.last"), take)
            .when(sfn.Condition.boolean_equals("$.listed.answer.again", value=True), list_again)
            .otherwise(report)
        )

    def _look_whether_halted(self, name: str, report: sfn.State) -> tasks.CallAwsService:
        halted = tasks.CallAwsService(
            self._scope,
            name,
            service="s3",
            action="listObjectsV2",
            parameters={
                "Bucket": self._bucket.bucket_name,
                "Prefix": sfn.JsonPath.format(f"{ROOT}/{{}}/{HALT}", sfn.JsonPath.string_at("$.name")),
                "MaxKeys": 1,
            },
            iam_resources=[_IN_THE_ROLE],
            result_selector={"found": sfn.JsonPath.object_at("$")},
            result_path="$.halt",
        )
        halted.add_retry(max_attempts=5, jitter_strategy=sfn.JitterType.FULL)
        halted.add_catch(report, result_path="$.problem")
        return halted

    def _gate(self, kept: Mapping[str, Any], migrate: sfn.State, report: sfn.State) -> sfn.State:
        """What stands before a wave: a pause in which the rollout can be stopped, by an alarm too; then an approval."""
        approval = (
            sfn.Choice(self._scope, "Is an approval needed?")
            .when(sfn.Condition.string_equals("$.wave.gate", "approval"), self._approval(migrate, report))
            .otherwise(migrate)
        )
        begin = sfn.Pass(
            self._scope,
            "Begin the pause",
            parameters={
                **kept,
                "at": sfn.JsonPath.number_at("$.at"),
                "wave": sfn.JsonPath.object_at("$.wave"),
                "looks": sfn.JsonPath.number_at("$.wave.looks"),
            },
        )
        pause = sfn.Wait(self._scope, "Pause", time=sfn.WaitTime.seconds_path("$.wave.look_s"))
        halted = self._look_whether_halted("Look whether it was halted meanwhile", report)
        count = sfn.Pass(
            self._scope,
            "Count the look",
            parameters={
                **kept,
                "at": sfn.JsonPath.number_at("$.at"),
                "wave": sfn.JsonPath.object_at("$.wave"),
                "looks": sfn.JsonPath.math_add(sfn.JsonPath.number_at("$.looks"), -1),
            },
        )
        is_over = sfn.Choice(self._scope, "Is the pause over?")
        goes_on = self._soak(count, report) if self._settings.soak_alarm else count
        begin.next(is_over)
        pause.next(halted).next(
            sfn.Choice(self._scope, "Does it still go on?").when(self._is_halted(), report).otherwise(goes_on)
        )
        count.next(is_over)
        is_over.when(sfn.Condition.number_greater_than("$.looks", 0), pause).otherwise(approval)
        return begin

    def _soak(self, goes_on: sfn.State, report: sfn.State) -> sfn.State:
        """While the canaries soak, look at the operator's alarm. One that does not exist stops the rollout, too."""
        alarm = tasks.CallAwsService(
            self._scope,
            "Look at the alarm",
            service="cloudwatch",
            action="describeAlarms",
            parameters={"AlarmNames": [self._settings.soak_alarm], "AlarmTypes": ["MetricAlarm", "CompositeAlarm"]},
            iam_resources=[_IN_THE_ROLE],
            result_selector={"found": sfn.JsonPath.object_at("$")},
            result_path="$.alarm",
        )
        alarm.add_retry(max_attempts=5, jitter_strategy=sfn.JitterType.FULL)
        stop = self._halt("Stop for the alarm", f"alarm {self._settings.soak_alarm} is on, or does not exist", report)
        alarm.add_catch(stop, result_path="$.ignored")
        # A name is of one kind of alarm only.
        is_off = [
            sfn.Condition.and_(
                sfn.Condition.is_present(state), sfn.Condition.not_(sfn.Condition.string_equals(state, "ALARM"))
            )
            for state in (f"$.alarm.found.{kind}Alarms[0].StateValue" for kind in ("Metric", "Composite"))
        ]
        look = sfn.Choice(self._scope, "Is the alarm off?").when(sfn.Condition.or_(*is_off), goes_on).otherwise(stop)
        return (
            sfn.Choice(self._scope, "Do the canaries soak?")
            .when(sfn.Condition.boolean_equals("$.wave.soaks", value=True), alarm.next(look))
            .otherwise(goes_on)
        )

    def _halt(self, name: str, message: str, report: sfn.State) -> sfn.State:
        halt = self._invoke(
            name,
            {"action": "halt", "rollout": {"name": sfn.JsonPath.string_at("$.name"), "message": message}},
            "$.ignored",
        )
        self._again(halt, ["BucketUnavailable"], self._retries)
        halt.add_catch(report, result_path="$.problem")
        halt.next(report)
        return halt

    def _approval(self, migrate: sfn.State, report: sfn.State) -> sfn.State:
        """Wait until somebody runs `migrate rollout approve`, or stops the rollout, or the time is over."""
        hours = self._settings.approval_hours
        wait = tasks.LambdaInvoke(
            self._scope,
            "Wait for the approval",
            lambda_function=self._function,
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
        late = self._halt("Nobody approved it", f"nobody approved the next wave within {hours} hours", report)
        wait.add_catch(late, errors=["States.Timeout"], result_path="$.ignored")
        # `migrate rollout stop` answers so, after it has halted the rollout.
        stopped = sfn.Pass(self._scope, "Not approved", result_path=sfn.JsonPath.DISCARD).next(report)
        wait.add_catch(stopped, errors=["RolloutStopped"], result_path="$.ignored")
        wait.add_catch(report, result_path="$.problem")
        halted = self._look_whether_halted("Look whether it was halted before the approval", report)
        wait.next(halted).next(
            sfn.Choice(self._scope, "Was it approved?").when(self._is_halted(), report).otherwise(migrate)
        )
        return wait

    def _is_halted(self) -> sfn.Condition:
        # Of all keys that begin so, the exact one is the first. Another one, such as halt.json.bak, does not halt.
        first = "$.halt.found.Contents[0].Key"
        return sfn.Condition.and_(sfn.Condition.is_present(first), sfn.Condition.string_matches(first, f"*/{HALT}"))

    def _wave(self) -> sfn.DistributedMap:
        # The local cloud's Map knows the number only, and would take any path for "as many as there are".
        concurrency: dict[str, Any] = (
            {"max_concurrency_path": "$.wave.concurrency"}
            if self._stage.in_full_cloud
            else {"max_concurrency": self._settings.concurrency}
        )
        wave = sfn.DistributedMap(
            self._scope,
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
                "said": "",
                # Initial value of the "busy" counter; the function returns the next value.
                "run": {"answer": {"looks": 0}},
            },
            # Only so that the answers of all do not have to fit into this state's.
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
        """What becomes of one target. It fails only when that cannot even be written down, which ends the wave."""
        part = {
            "name": sfn.JsonPath.string_at("$.name"),
            "item": sfn.JsonPath.object_at("$.item"),
            "runs": sfn.JsonPath.number_at("$.runs"),
        }
        # In the local cloud a child has its parent's time.
        began = {"began": sfn.JsonPath.string_at("$$.Execution.StartTime")} if self._stage.in_full_cloud else {}
        record = self._invoke(
            "Record the failure",
            {"action": "record", "rollout": {**part, **began, "error": sfn.JsonPath.object_at("$.error")}},
            "$.run",
        )
        self._again(record, ["BucketUnavailable"], self._retries)
        over = sfn.Pass(self._scope, "Done", parameters={"outcome": sfn.JsonPath.string_at("$.run.answer.outcome")})
        record.next(over)
        wait = sfn.Wait(
            self._scope, "Wait for room on its server", time=sfn.WaitTime.seconds_path("$.run.answer.wait_s")
        )
        room = (
            sfn.Choice(self._scope, "Was there room on its server?")
            .when(sfn.Condition.string_equals("$.run.answer.outcome", "busy"), wait)
            .otherwise(over)
        )
        migrate = self._migrate(
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
        report = self._invoke(
            "Write the report",
            {
                "action": "report",
                "rollout": {"name": sfn.JsonPath.string_at("$.name"), "problem": sfn.JsonPath.object_at("$.problem")},
            },
            "$.report",
        )
        self._again(report, ["BucketUnavailable"], self._retries)
        message = "$.report.answer.rollout.message"
        ended = (
            sfn.Choice(self._scope, "How did it end?")
            .when(
                sfn.Condition.string_equals("$.report.answer.rollout.status", "succeeded"),
                sfn.Succeed(self._scope, "Rolled out", output_path="$.report.answer"),
            )
            .when(
                sfn.Condition.string_equals("$.report.answer.rollout.status", "stopped"),
                sfn.Fail(self._scope, "Stopped", error="RolloutStopped", cause_path=message),
            )
            .otherwise(sfn.Fail(self._scope, "Failed", error="RolloutFailed", cause_path=message))
        )
        report.next(self._prune(ended))
        return report
