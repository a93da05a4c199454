"""A run without Lambda's limit of 15 minutes: a build of the stage's CodeBuild project, from its start to its end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from botocore import exceptions

from migrate_cli import invocation
from migrate_cli.errors import CommandError, ExitCode, of_function, steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from migrate_cli.errors import Commands
    from migrate_cli.follower import Follower
    from migrate_cli.progress import RunDisplay
    from migrate_cli.stages import Function

READ_EVERY_S = 5.0
_TICK_S = 0.2
_CONNECT_S = 10
_READ_S = 60
# Maximum number of failed reads in a row. They take ten minutes, in which a network or a login may come back.
_FAILED_READS = 120
# Log lines arrive seconds after the end of the build.
LOG_PATIENCE_S = 20.0
# The names of `infra.long_runs`, which the command line cannot import without the CDK.
_EVENT = "LONG_RUN_EVENT"
_OUTCOME = "OUTCOME"


def follow(
    function: Function, event: Mapping[str, Any], commands: Commands, follower: Follower, display: RunDisplay
) -> dict[str, Any]:
    """Start a long run, show its progress, and return its result.

    Raises:
        CommandError: the run failed, could not be started, or ended without an answer.
    """
    builds = _Builds(function, commands)
    build_id = builds.start(event)
    # The run's request id is the last part of the build's id.
    request_id = build_id.rpartition(":")[2]
    if follower.log is not None:
        follower.log.request_id = request_id
    display.print_folded(f"long run {build_id}; CodeBuild takes about a minute to start it")
    while True:
        next_read = time.monotonic() + READ_EVERY_S
        while time.monotonic() < next_read:
            follower.show(display)
            time.sleep(_TICK_S)
        build = builds.look(build_id)
        if build is not None:
            follower.show(display)
            outcome = _outcome(build, request_id, commands)
            return _completed({"action": event["action"], **outcome}, event, builds, follower, display)


class _Builds:
    def __init__(self, function: Function, commands: Commands) -> None:
        self._function = function
        self._commands = commands
        self._client = function.client("codebuild", connect_s=_CONNECT_S, read_s=_READ_S)
        self._failed = 0

    def start(self, event: Mapping[str, Any]) -> str:
        """Start a build for this event and return its id."""
        project = self._function.names.long_runs
        override = {"name": _EVENT, "value": json.dumps(event), "type": "PLAINTEXT"}
        try:
            started = self._client.start_build(projectName=project, environmentVariablesOverride=[override])
        except exceptions.ClientError as error:
            raise self._refused(error) from None
        except exceptions.BotoCoreError as error:
            raise invocation.unreached(error, self._commands) from None
        return str(started["build"]["id"])

    def look(self, build_id: str) -> Mapping[str, Any] | None:
        """Return the build if it has ended. Return None if it runs, or if AWS does not answer at the moment."""
        try:
            [build] = self._client.batch_get_builds(ids=[build_id])["builds"]
        except (exceptions.BotoCoreError, exceptions.ClientError, ValueError) as error:
            self._failed += 1
            if self._failed < _FAILED_READS:
                return None
            raise CommandError(
                type(error).__name__,
                f"the state of long run {build_id} can no longer be read: {error}",
                ExitCode.AWS,
                advice=steps(("It continues. The database's state", self._commands.named("status"))),
            ) from None
        self._failed = 0
        return build if build["buildStatus"] != "IN_PROGRESS" else None

    def pending(self, event: Mapping[str, Any], outcome: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return the pending revisions, or None if the database does not answer or has changed since the run."""
        try:
            status = invocation.status(self._function, self._commands, event.get("target"))
        except CommandError:
            return None
        return status["pending"] if status["revision"] == outcome.get("revision") else None

    def _refused(self, error: exceptions.ClientError) -> CommandError:
        details: Mapping[str, Any] = error.response
        code = details.get("Error", {}).get("Code", "Unknown")
        project = self._function.names.long_runs
        where = f"{project} in {self._function.session.region_name}"
        if code == "ResourceNotFoundException":
            advice = f"Set `long_runs` for stage {self._function.stage} in cdk.json and deploy it."
        elif code in invocation.DENIED:
            advice = f"The caller needs codebuild:StartBuild and codebuild:BatchGetBuilds on project {project}."
        elif code in invocation.CREDENTIALS:
            advice = invocation.NO_CREDENTIALS
        else:
            advice = steps(("Nothing was run. In a moment", self._commands.again()))
        message = details.get("Error", {}).get("Message") or str(error)
        return CommandError(code, f"{where}: {message}", ExitCode.AWS, advice=advice)


def _outcome(build: Mapping[str, Any], request_id: str, commands: Commands) -> dict[str, Any]:
    exported = {each["name"]: each.get("value", "") for each in build.get("exportedEnvironmentVariables") or []}
    try:
        outcome: dict[str, Any] = json.loads(exported[_OUTCOME])
    except (KeyError, ValueError):
        raise CommandError(
            "LongRunFailed",
            f"long run {build['id']} ended without an answer ({build['buildStatus']}): it was stopped or killed, or ran"
            " out of time",
            ExitCode.AWS,
            advice=steps(
                ("Committed revisions stay. The database's state", commands.named("status")),
                ("The log", commands.log(request_id)),
            ),
            request_id=request_id,
        ) from None
    if "errorType" in outcome:
        raise of_function(outcome["errorType"], str(outcome.get("errorMessage", "")), request_id, commands)
    return outcome


def _completed(
    outcome: dict[str, Any], event: Mapping[str, Any], builds: _Builds, follower: Follower, display: RunDisplay
) -> dict[str, Any]:
    """Return the result, with the lists that a long outcome lacks read from the log and the database.

    ``truncated`` names the lists that are still incomplete.
    """
    cut = {*outcome.get("truncated", ()), *({"applied", "pending"} - outcome.keys())}
    if "applied" in cut:
        outcome["applied"], whole = _applied(follower, display)
        cut -= {"applied"} if whole else set()
    if "pending" in cut and (pending := builds.pending(event, outcome)) is not None:
        outcome["pending"] = pending
        cut -= {"pending"}
    outcome.pop("truncated", None)
    return {**outcome, "truncated": sorted(cut)} if cut else outcome


def _applied(follower: Follower, display: RunDisplay) -> tuple[list[dict[str, Any]], bool]:
    """Return the applied revisions in the log, and whether they are all, according to the run's last line."""
    give_up = time.monotonic() + LOG_PATIENCE_S
    steps: dict[str, dict[str, Any]] = {}
    while True:
        follower.show(display)
        if follower.log is None:
            return list(steps.values()), False
        for line in follower.log.lines:
            if line["event"] == "revision.applied":
                step = {name: line.get(name) for name in ("revision", "description", "duration_ms")}
                steps[str(line["revision"])] = step
        last = follower.log.last
        names = last.get("applied") if last else None
        if isinstance(names, list) and set(names) == steps.keys():
            return [steps[name] for name in names], True
        if time.monotonic() > give_up:
            return list(steps.values()), False
        time.sleep(_TICK_S)
