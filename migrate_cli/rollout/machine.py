"""A stage's state machine and the objects of its rollouts in S3. A call to AWS that fails raises a `CommandError`."""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from botocore import exceptions

from infra.names import OtherNames
from lambda_migrate.fleet import report as reports
from lambda_migrate.fleet.bucket import Bucket, ChangedMeanwhile
from lambda_migrate.fleet.folder import (
    APPROVAL,
    FAILED,
    LATEST,
    LEFT,
    OUTCOMES,
    PAGE,
    REPORT,
    ROOT,
    STOPPED,
    TARGETS,
    Folder,
    SpoiledError,
    has_form,
)
from lambda_migrate.invocation.request import is_rollout_name
from migrate_cli import invocation
from migrate_cli.errors import CommandError, ExitCode, NoAnswer, UsageError, interrupted_as, of_function, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from migrate_cli.actions import Call
    from migrate_cli.errors import Commands
    from migrate_cli.stages import Function

# The status of an execution in Step Functions.
RUNNING = "RUNNING"
SUCCEEDED = "SUCCEEDED"
ABORTED = "ABORTED"
# The error of an execution that found another rollout running.
ALREADY_RUNNING = "AlreadyRunning"

# The form of a report. Another one is not shown: it was not written by the function.
_REPORT = {
    **dict.fromkeys(("rollout", "stage", "started", "status", "message"), str),
    "plan": bool,
    "counts": dict.fromkeys((*OUTCOMES, "targets"), int),
    "revisions": dict,
    "waves": [dict],
    "failures": [dict],
    "slowest": [dict],
}
# Step Functions deletes executions after 90 days.
_FORGOTTEN = frozenset({"ExecutionDoesNotExist"})

# The errors of Step Functions for a token that is no longer waited for.
_NOT_WAITING = frozenset({"TaskDoesNotExist", "TaskTimedOut", "InvalidToken"})

# Error codes of S3 for a write that requires that the object does not exist yet.
_EXISTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
_CONNECT_S = 10
_READ_S = 60


@dataclass(frozen=True)
class _Bucket(Bucket):
    """The rollouts' bucket, with the credentials of this command's caller."""

    client: Any = None

    def read(self, key: str) -> tuple[Any, str] | None:
        content = self.content(key)
        try:
            return None if content is None else (json.loads(content), "")
        except ValueError:
            return None, ""

    def content(self, key: str) -> bytes | None:
        """Return an object's content, or None if it does not exist."""
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

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the names of the folders below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix, Delimiter="/")
        for page in pages:
            yield from (entry["Prefix"][len(prefix) : -1] for entry in page.get("CommonPrefixes", ()))

    def has(self, key: str) -> bool:
        return self.content(key) is not None

    def keys(self, prefix: str) -> Iterator[str]:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
            yield from (entry["Key"] for entry in page.get("Contents", ()))


@dataclass(frozen=True)
class Listed:
    """A rollout whose targets were listed. ``started`` is a time in ISO 8601; a ``plan`` changes nothing."""

    name: str
    started: str
    plan: bool
    targets: int

    @classmethod
    def of(cls, name: str, listing: Mapping[str, Any]) -> Listed:
        """Return it from its rollout.json."""
        return cls(name, listing["started"], listing["plan"], listing["targets"])


def _listing(folder: Folder) -> Mapping[str, Any] | None:
    """Return a rollout's rollout.json, or None if there is none or it was changed."""
    try:
        return folder.listing()
    except SpoiledError:
        return None


@dataclass(frozen=True)
class Machine:
    """A stage's state machine. It has a bucket if the stage has ``rollout`` in its settings."""

    stage: str
    name: str
    arn: str
    bucket: _Bucket | None
    commands: Commands
    function: Function
    client: Any

    def start(self, execution_input: Mapping[str, Any]) -> str:
        """Start an execution and return its name.

        Raises:
            CommandError: it was refused, or its start is unknown. Then the error has its name.
        """
        name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        unknown = f"rollout {name} may have started"
        look = steps(
            ("To check", self.commands.named(f"rollout status {name}")),
            ("To stop it", self.commands.named(f"rollout stop {name}")),
        )
        try:
            with interrupted_as(unknown, look), self.calling("states:StartExecution"):
                self.client.start_execution(stateMachineArn=self.arn, name=name, input=json.dumps(execution_input))
        except NoAnswer as error:
            raise CommandError(error.kind, f"{unknown}: {error.message}", error.exit_code, advice=look) from None
        return name

    def execution(self, name: str) -> Mapping[str, Any]:
        """Return Step Functions' description of an execution: ``name``, ``status``, and its output or error."""
        with self.calling("states:DescribeExecution"):
            execution: Mapping[str, Any] = self.client.describe_execution(executionArn=self._execution_arn(name))
        return execution

    def remembered(self, name: str) -> Mapping[str, Any]:
        """Return the description of an execution, or only its name if only S3 still has it.

        Raises:
            CommandError: neither of them has it.
        """
        try:
            return self.execution(name)
        except CommandError as error:
            if error.kind not in _FORGOTTEN or self.bucket is None:
                raise
            with self.calling("s3:GetObject"):
                if _listing(self.folder(name)) is None:
                    raise
            return {"name": name, "status": "FORGOTTEN"}

    def latest(self) -> str:
        """Return the name of the last rollout, without plans and rollouts that failed to list their targets.

        Raises:
            UsageError: there was none.
        """
        if self.bucket is None:
            with self.calling("states:ListExecutions"):
                found = self.client.list_executions(stateMachineArn=self.arn, maxResults=1)["executions"]
            name = found[0]["name"] if found else None
        else:
            name = self._newest() or next((each.name for each in self.rollouts() if not each.plan), None)
        if name is None:
            raise UsageError(
                f"stage {self.stage} has not had a rollout yet",
                advice=steps(("To start one", self.commands.named("rollout"))),
            )
        return str(name)

    def _newest(self) -> str | None:
        """Return the rollout in latest.json, unless it is a plan or ended before it had listed its targets."""
        with self.calling("s3:GetObject"):
            latest = self._bucket().read(LATEST)
            name = latest[0].get("rollout") if latest and isinstance(latest[0], dict) else None
            if not isinstance(name, str) or not is_rollout_name(name):
                return None
            listing = _listing(self.folder(name))
        if listing is not None:
            return None if listing["plan"] else name
        try:
            return name if self.execution(name)["status"] == RUNNING else None
        except CommandError as error:
            if error.kind in _FORGOTTEN:
                return None
            raise

    def rollouts(self) -> list[Listed]:
        """Return the rollouts whose targets were listed, the newest first."""
        with self.calling("s3:GetObject", "s3:ListBucket"):
            folders = [self.folder(name) for name in self._bucket().folders(f"{ROOT}/")]
            listings = ((folder.name, _listing(folder)) for folder in folders)
            found = [Listed.of(name, listing) for name, listing in listings if listing is not None]
        return sorted(found, key=lambda listed: listed.started, reverse=True)

    def ended_as(self, listed: Listed) -> tuple[str, Mapping[str, int]]:
        """Return the status of a rollout, and the counts of its targets if it has a report."""
        with self.calling("s3:GetObject"):
            report = self.folder(listed.name).read(REPORT)
        if isinstance(report, dict) and isinstance(report.get("counts"), dict):
            return str(report.get("status")), report["counts"]
        try:
            return str(self.execution(listed.name)["status"]).lower(), {}
        except CommandError as error:
            if error.kind in _FORGOTTEN:
                return "unknown", {}
            raise

    def stop(self, name: str, who: str) -> bool:
        """Stop a rollout: running targets finish, and no further target starts.

        In a stage without targets, this aborts the execution, and a running function ends by itself. Return False if
        the rollout may still wait for an approval, because the caller may not end the wait.
        """
        if self.bucket is None:
            with self.calling("states:StopExecution"):
                self.client.stop_execution(executionArn=self._execution_arn(name), error="Stopped", cause=who)
            return True
        with self.calling("s3:PutObject"):
            self.folder(name).halt(STOPPED, f"stopped by {who}")
        waiting = self.approval(name)
        if waiting is not None:
            # Otherwise the rollout would stop only when the time for the approval is over.
            try:
                self._answer(
                    lambda: self.client.send_task_failure(taskToken=waiting, error="RolloutStopped", cause=who)
                )
            except CommandError as error:
                if error.kind not in invocation.DENIED:
                    raise
                return False
        return True

    def approval(self, name: str) -> str | None:
        """Return the token of the rollout's last request for an approval, or None."""
        request = self.approval_request(name)
        return None if request is None else request[0]

    def approval_request(self, name: str) -> tuple[str, str] | None:
        """Return the token of the last request for an approval and the key of the wave that waits for it.

        Both stay after the approval.
        """
        with self.calling("s3:GetObject"):
            request = self.folder(name).read(APPROVAL)
        token = request.get("token") if isinstance(request, dict) else None
        return (token, str(request.get("before"))) if isinstance(token, str) else None

    def approve(self, name: str, who: str) -> None:
        """Approve the wave that waits for an approval.

        Raises:
            UsageError: it does not wait for an approval.
        """
        token = self.approval(name)
        output = json.dumps({"approved_by": who})
        if token is None or not self._answer(lambda: self.client.send_task_success(taskToken=token, output=output)):
            raise UsageError(
                f"rollout {name} does not wait for an approval",
                advice=steps(("Its progress", self.commands.named(f"rollout status {name}"))),
            )

    def _answer(self, send: Callable[[], object]) -> bool:
        """Answer an approval, and return whether the rollout still waited for it."""
        try:
            with self.calling("states:SendTaskSuccess", "states:SendTaskFailure"):
                send()
        except CommandError as error:
            if error.kind not in _NOT_WAITING:
                raise
            return False
        return True

    def folder(self, name: str) -> Folder:
        """Return the folder in S3 of one rollout."""
        return Folder(self._bucket(), name)

    def must_have_failures(self, name: str) -> None:
        """Raise an error if a rollout cannot be retried.

        Raises:
            UsageError: no target failed, or the rollout was a plan.
        """
        with self.calling("s3:GetObject", "s3:ListBucket"):
            folder = self.folder(name)
            rollout = _listing(folder)
            failed = rollout is not None and any(True for _ in folder.outcomes(outcome=FAILED))
        another = steps(("Name another one. To list them", self.commands.named("rollout list")))
        if rollout is None:
            raise UsageError(f"rollout {name} started nothing: it could not list its targets", advice=another)
        if rollout["plan"]:
            raise UsageError(f"rollout {name} was a plan", advice=another)
        if rollout.get("downgrade_to") is not None:
            back = f"rollout --downgrade-to {rollout['downgrade_to']} --migrated-by {rollout.get('migrated_by')}"
            raise UsageError(
                f"rollout {name} reverted revisions, and a retry would upgrade",
                advice=steps(("To revert the remaining ones", self.commands.named(back))),
            )
        if not failed:
            raise UsageError(
                f"nothing failed in rollout {name}",
                advice=steps(("Its report", self.commands.named(f"rollout show {name}"))),
            )

    def report(self, execution: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the stored report, or one of the outcomes so far, or None before the targets are listed."""
        name, status, ended = execution["name"], execution["status"], execution.get("stopDate")
        with self.calling("s3:GetObject", "s3:ListBucket"):
            folder = self.folder(name)
            stored = folder.read(REPORT)
            report: dict[str, Any] | None = stored if has_form(stored, _REPORT) else None
            if report is None:
                report = reports.read(folder, stage=self.stage, ended=ended)
        if report is not None and status == RUNNING:
            done = report["counts"]["targets"] - report["counts"][LEFT]
            report |= {"status": "running", "message": f"{done:,} of the targets are done"}
        return report

    def page(self, name: str) -> bytes | None:
        """Return a rollout's report as a page, or None if it is not written yet."""
        return self._content(name, PAGE)

    def targets(self, name: str) -> bytes | None:
        """Return a rollout's targets.jsonl, or None if it is not written yet."""
        return self._content(name, TARGETS)

    def _content(self, name: str, file: str) -> bytes | None:
        with self.calling("s3:GetObject"):
            return self._bucket().content(self.folder(name).key(file))

    def running(self, name: str) -> int | None:
        """Return the number of running targets, or None if the caller may not read it."""
        try:
            runs = self.client.list_map_runs(executionArn=self._execution_arn(name))["mapRuns"]
            active = [run["mapRunArn"] for run in runs if "stopDate" not in run]
            found = (self.client.describe_map_run(mapRunArn=arn) for arn in active)
            return sum(int(run["itemCounts"]["running"]) for run in found)
        except (exceptions.ClientError, exceptions.BotoCoreError):
            return None

    def where(self, name: str, file: str) -> str:
        """Return the address of an object of a rollout."""
        return f"s3://{self._bucket().name}/{self.folder(name).key(file)}"

    @contextmanager
    def calling(self, *permissions: str) -> Iterator[None]:
        """Raise the errors of calls to AWS as `CommandError`. ``permissions`` are those that the calls need."""
        with _calling(self.function, self.commands, permissions):
            yield

    def _bucket(self) -> _Bucket:
        if self.bucket is None:
            raise UsageError(
                f"stage {self.stage} has no targets: `rollout` is not in its settings in cdk.json",
                advice=steps(("It has one database", self.commands.named("plan"))),
            )
        return self.bucket

    def _execution_arn(self, name: str) -> str:
        return f"{self.arn.replace(':stateMachine:', ':execution:')}:{name}"


def find(call: Call) -> Machine:
    """Return the state machine of a stage, from the outputs of its stack.

    Raises:
        CommandError: the stage is not deployed, or AWS cannot be reached.
    """
    function = call.function()
    commands = call.commands()
    if isinstance(function.names, OtherNames):
        raise UsageError(
            f"the state machine of {function.name} cannot be found by its name", advice="Pass --stage STAGE."
        )
    stack = function.names.stack
    with _calling(function, commands, ("cloudformation:DescribeStacks",)):
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
    return Machine(
        call.stage,
        function.names.state_machine,
        arn,
        _Bucket(bucket, s3) if bucket else None,
        commands,
        function,
        states,
    )


@contextmanager
def _calling(function: Function, commands: Commands, permissions: tuple[str, ...]) -> Iterator[None]:
    try:
        yield
    except exceptions.ClientError as error:
        raise _refused(error, function, commands, permissions) from None
    except exceptions.BotoCoreError as error:
        raise invocation.unreached(error, commands) from None


def _refused(
    error: exceptions.ClientError, function: Function, commands: Commands, permissions: tuple[str, ...]
) -> CommandError:
    details: Mapping[str, Any] = error.response
    code = details.get("Error", {}).get("Code", "Unknown")
    message = details.get("Error", {}).get("Message") or str(error)
    if code in {"ValidationError", "StateMachineDoesNotExist"}:
        advice = f"Deploy stage {function.stage} first, or pass another --region or --profile."
    elif code == "ExecutionDoesNotExist":
        advice = steps(("See the rollouts and plans of the stage", commands.named("rollout list")))
    elif code in invocation.DENIED:
        advice = f"The caller needs {' and '.join(permissions)}: docs/rollouts.md lists the resources."
    elif code in invocation.CREDENTIALS:
        advice = invocation.NO_CREDENTIALS
    else:
        advice = "A started rollout continues."
    request_id = details.get("ResponseMetadata", {}).get("RequestId")
    return CommandError(code, message, ExitCode.AWS, advice=advice, request_id=request_id)


def execution_error(machine: Machine, execution: Mapping[str, Any]) -> CommandError:
    """Return the error of an execution without a report: the function's own, or Step Functions'."""
    kind, cause = str(execution.get("error") or execution["status"]), str(execution.get("cause") or "")
    if kind == ALREADY_RUNNING:
        return CommandError(
            kind,
            f"{cause}; this one did nothing",
            ExitCode.AGAIN,
            advice=steps(
                ("Its progress", machine.commands.named("rollout status")),
                ("To stop it", machine.commands.named("rollout stop")),
            ),
        )
    try:
        message = str(json.loads(cause)["errorMessage"])
    except (ValueError, TypeError, KeyError):
        message = cause or f"the execution ended as {execution['status']}"
    if kind in {ABORTED, "TIMED_OUT", "Stopped"}:
        return CommandError(
            kind, message, ExitCode.AGAIN, advice=steps(("To continue", machine.commands.named("rollout")))
        )
    if kind == "InvalidRequest":
        return CommandError(kind, message, ExitCode.USAGE, advice=_after_wrong_name(message, machine.commands))
    return of_function(kind, message, None, machine.commands)


def _after_wrong_name(message: str, commands: Commands) -> str:
    """Return the next step after an execution refused its input."""
    if message.startswith("there is no target "):
        return steps(("Nothing was started. See the known targets", commands.named("fleet status")))
    if message.startswith("there is no rollout "):
        return steps(("Nothing was started. See the rollouts and plans", commands.named("rollout list")))
    return "Nothing was started."
