"""A stage's state machine and what its rollouts leave in S3, asked from here. Whatever fails is a `CommandError`."""

from __future__ import annotations

import json
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from botocore import exceptions

from lambda_migrate.fleet import report as reports
from lambda_migrate.fleet.bucket import Bucket, ChangedMeanwhile
from lambda_migrate.fleet.folder import LATEST, Folder
from migrate_cli import invocation, stages
from migrate_cli.errors import CommandError, ExitCode, UsageError, of_function

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrate_cli.actions import Call
    from migrate_cli.errors import Commands
    from migrate_cli.stages import Function

RUNNING = "RUNNING"

# What S3 says of an object that is there although the writer wants to be the first.
_EXISTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
_CONNECT_S = 10
_READ_S = 60


@dataclass(frozen=True)
class _Bucket(Bucket):
    """The rollouts' bucket, as the caller of this command may use it and not as the function may."""

    client: Any = None

    def read(self, key: str) -> tuple[Any, str] | None:
        content = self.content(key)
        return None if content is None else (json.loads(content), "")

    def content(self, key: str) -> bytes | None:
        """An object's content; None when there is no such object."""
        try:
            content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        return content

    def write(self, key: str, content: bytes | str, *, kind: str = "application/json", **condition: str) -> None:
        body = content.encode() if isinstance(content, str) else content
        try:
            self.client.put_object(Bucket=self.name, Key=key, Body=body, ContentType=kind, **condition)
        except exceptions.ClientError as error:
            if error.response.get("Error", {}).get("Code") not in _EXISTS:
                raise
            raise ChangedMeanwhile(key) from None

    def keys(self, prefix: str) -> Iterator[str]:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
            yield from (entry["Key"] for entry in page.get("Contents", ()))


@dataclass(frozen=True)
class Machine:
    """A stage's state machine. It has a bucket where the stage has ``rollout`` in its settings."""

    stage: str
    name: str
    arn: str
    bucket: _Bucket | None
    commands: Commands
    function: Function
    client: Any

    def start(self, said: Mapping[str, Any]) -> str:
        """Begin an execution and give its name."""
        name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        with self.asked("states:StartExecution"):
            self.client.start_execution(stateMachineArn=self.arn, name=name, input=json.dumps(said))
        return name

    def execution(self, name: str) -> Mapping[str, Any]:
        """What Step Functions says of one: ``status``, and how it ended."""
        with self.asked("states:DescribeExecution"):
            said: Mapping[str, Any] = self.client.describe_execution(executionArn=self._execution_arn(name))
        return said

    def latest(self) -> str:
        """The execution that began last.

        Raises:
            UsageError: there was none.
        """
        with self.asked("states:ListExecutions" if self.bucket is None else "s3:GetObject"):
            if self.bucket is None:
                found = self.client.list_executions(stateMachineArn=self.arn, maxResults=1)["executions"]
                name = found[0]["name"] if found else None
            else:
                latest = self.bucket.read(LATEST)
                name = latest[0]["rollout"] if latest else None
        if name is None:
            raise UsageError(
                f"stage {self.stage} has not had a rollout yet",
                advice=f"To begin one: {self.commands.named('rollout')}",
            )
        return str(name)

    def stop(self, name: str, who: str) -> None:
        """Let it begin nothing more. Without targets, end it: what the function has begun it ends itself."""
        if self.bucket is None:
            with self.asked("states:StopExecution"):
                self.client.stop_execution(executionArn=self._execution_arn(name), error="Stopped", cause=who)
            return
        with self.asked("s3:PutObject"):
            self.folder(name).halt("stopped", f"stopped by {who}")

    def folder(self, name: str) -> Folder:
        """What one rollout leaves in S3."""
        return Folder(self._bucket(), name)

    def must_have_failures(self, name: str) -> None:
        """See that a rollout can be retried.

        Raises:
            UsageError: there was nothing that failed, or nothing was to be migrated.
        """
        with self.asked("s3:GetObject", "s3:ListBucket"):
            folder = self.folder(name)
            rollout = folder.read("rollout.json")
            failed = rollout is not None and any(True for _ in folder.outcomes(outcome="failed"))
        another = "Another one: migrate rollout retry --of NAME, as it is in the address of its report."
        if rollout is None:
            raise UsageError(f"rollout {name} began nothing: it did not come to list its targets", advice=another)
        if rollout["plan"]:
            raise UsageError(f"rollout {name} was a plan", advice=another)
        if not failed:
            raise UsageError(f"nothing failed in rollout {name}")

    def report(self, name: str, status: str) -> dict[str, Any] | None:
        """Its report as it was written, or as it would be now. None before its targets are listed."""
        with self.asked("s3:GetObject", "s3:ListBucket"):
            folder = self.folder(name)
            told: dict[str, Any] | None = folder.read("report.json") or reports.read(folder)
        if told is not None and status == RUNNING:
            left = told["counts"]["left"]
            told |= {"status": "running", "message": f"{told['counts']['targets'] - left} of the targets are done"}
        return told

    def page(self, name: str) -> bytes | None:
        """Its report as a page."""
        with self.asked("s3:GetObject"):
            return self._bucket().content(self.folder(name).key("report.html"))

    def running(self, name: str) -> int | None:
        """How many targets are being worked on; None if nobody may tell."""
        try:
            runs = self.client.list_map_runs(executionArn=self._execution_arn(name))["mapRuns"]
            told = (self.client.describe_map_run(mapRunArn=run["mapRunArn"]) for run in runs if "stopDate" not in run)
            return sum(int(run["itemCounts"]["running"]) for run in told)
        except (exceptions.ClientError, exceptions.BotoCoreError):
            return None

    def where(self, name: str, file: str) -> str:
        """The address of one of its objects."""
        return f"s3://{self._bucket().name}/{self.folder(name).key(file)}"

    @contextmanager
    def asked(self, *actions: str) -> Iterator[None]:
        """Whatever AWS, or the way to it, has against this."""
        with _asked(self.function, self.commands, actions):
            yield

    def _bucket(self) -> _Bucket:
        if self.bucket is None:
            raise UsageError(
                f"stage {self.stage} has no targets: `rollout` is not in its settings in cdk.json",
                advice=f"Its one database: {self.commands.named('plan')}, {self.commands.named('upgrade')}",
            )
        return self.bucket

    def _execution_arn(self, name: str) -> str:
        return f"{self.arn.replace(':stateMachine:', ':execution:')}:{name}"


def find(call: Call) -> Machine:
    """The state machine of a stage, by the outputs of its stack.

    Raises:
        CommandError: the stage is not deployed, or AWS cannot be asked.
    """
    function = call.function()
    commands = call.commands(function)
    project = stages.project()
    stack = f"{project.prefix}-{project.service}-migrate-{call.stage}"
    with _asked(function, commands, ("cloudformation:DescribeStacks",)):
        formation = function.client("cloudformation", connect_s=_CONNECT_S, read_s=_READ_S)
        (found,) = formation.describe_stacks(StackName=stack)["Stacks"]
        states = function.client("stepfunctions", connect_s=_CONNECT_S, read_s=_READ_S)
        s3 = function.client("s3", connect_s=_CONNECT_S, read_s=_READ_S)
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", ())}
    arn, bucket = outputs.get("StateMachineArn"), outputs.get("RolloutBucket")
    if arn is None or (function.account is not None and f":{function.account}:" not in arn):
        raise CommandError(
            "NotDeployed", f"stack {stack} has no state machine", ExitCode.AWS, advice=f"Deploy stage {call.stage}."
        )
    return Machine(call.stage, stack, arn, _Bucket(bucket, s3) if bucket else None, commands, function, states)


@contextmanager
def _asked(function: Function, commands: Commands, actions: tuple[str, ...]) -> Iterator[None]:
    try:
        yield
    except exceptions.ClientError as error:
        raise _refused(error, function, actions) from None
    except exceptions.BotoCoreError as error:
        raise invocation.unreached(error, commands) from None


def _refused(error: exceptions.ClientError, function: Function, actions: tuple[str, ...]) -> CommandError:
    details: Mapping[str, Any] = error.response
    code = details.get("Error", {}).get("Code", "Unknown")
    message = details.get("Error", {}).get("Message") or str(error)
    if code in {"ValidationError", "StateMachineDoesNotExist"}:
        advice = f"Deploy stage {function.stage} first, or say another --region or --profile."
    elif code in invocation.DENIED:
        advice = f"The caller needs {' and '.join(actions)}: docs/rollouts.md says on what."
    elif code in invocation.CREDENTIALS:
        advice = invocation.NO_CREDENTIALS
    else:
        advice = "A rollout that was begun goes on all the same."
    request_id = details.get("ResponseMetadata", {}).get("RequestId")
    return CommandError(code, message, ExitCode.AWS, advice=advice, request_id=request_id)


def failure(machine: Machine, said: Mapping[str, Any]) -> CommandError:
    """Why an execution ended that has no report: the function's own error, or Step Functions'."""
    kind, cause = str(said.get("error") or said["status"]), str(said.get("cause") or "")
    if kind == "AlreadyRunning":
        return CommandError(
            kind,
            f"{cause}; this one did nothing",
            ExitCode.AGAIN,
            advice=f"How far it is: {machine.commands.named('rollout status')}. To stop it:"
            f" {machine.commands.named('rollout stop')}",
        )
    try:
        message = str(json.loads(cause)["errorMessage"])
    except (ValueError, TypeError, KeyError):
        message = cause or f"the execution ended as {said['status']}"
    if kind in {"ABORTED", "TIMED_OUT", "Stopped"}:
        return CommandError(kind, message, ExitCode.AGAIN, advice=f"To go on: {machine.commands.named('rollout')}")
    if kind == "InvalidRequest":
        return CommandError(kind, message, ExitCode.USAGE, advice="Nothing was begun.")
    return of_function(kind, message, None, machine.commands)


@dataclass
class Progress:
    """How far a rollout is, by the keys of its outcomes: each is one target that has ended."""

    targets: int | None = None
    waves: int = 0
    wave: int = 0
    done: int = 0
    failed: int = 0
    running: int | None = None
    began: float = field(default_factory=time.monotonic)
    moved: float = 0
    new_failures: list[str] = field(default_factory=list)
    _ended: dict[int, dict[int, str]] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def look(self, machine: Machine, name: str) -> None:
        """Look again. Waves come one after the other, so that only the present one is listed."""
        folder = machine.folder(name)
        with machine.asked("s3:ListBucket", "s3:GetObject"):
            rollout = folder.read("rollout.json")
            if rollout is None:
                return
            self.targets, self.waves = rollout["targets"], len(rollout["waves"])
            for wave in rollout["waves"]:
                number = wave["wave"]
                if len(self._ended.get(number, ())) < wave["count"]:
                    outcomes = sorted(folder.outcomes(number), key=lambda outcome: outcome.outcome == "migrated")
                    self._ended[number] = {outcome.number: outcome.outcome for outcome in outcomes}
                    failed = {outcome.key for outcome in outcomes if outcome.outcome == "failed"}
                    self.new_failures += sorted(failed - self._told)
                    self._told |= failed
                if self._ended[number]:
                    self.wave = number
                else:
                    break
        ended = [outcome for wave in self._ended.values() for outcome in wave.values()]
        if len(ended) != self.done:
            self.moved = time.monotonic()
        self.done, self.failed = len(ended), ended.count("failed")
        self.running = machine.running(name)

    @property
    def to_go_s(self) -> float | None:
        """How long the others will take if they take as long as those that ended; None if nothing tells that."""
        remaining = (self.targets or 0) - self.done
        return (self.moved - self.began) / self.done * remaining if self.done and remaining else None

    @property
    def left(self) -> int:
        """How many are neither done nor at work."""
        return max((self.targets or 0) - self.done - (self.running or 0), 0)
