"""What a command does between its options and its output: check, invoke, follow, try again."""

from __future__ import annotations

import sys
import time
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.errors import InvalidRequest
from lambda_migrate.invocation.request import parse_request
from migrate_cli import invocation, stages
from migrate_cli.errors import CommandError, Commands, ExitCode, UsageError
from migrate_cli.progress import RunDisplay
from migrate_cli.stream import RunLog, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from migrate_cli.output import Output
    from migrate_cli.stages import Function

CHANGING = frozenset({"upgrade", "downgrade", "stamp", "rollout"})
# Those that step through revisions, one log line each.
_FOLLOWED = frozenset({"upgrade", "downgrade"})

_TICK_S = 0.2
_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Call:
    """What every command is told: which stage, how to get there, and where to work."""

    stage: str
    region: str | None = None
    profile: str | None = None
    secret_id: str | None = None
    database: str | None = None
    schema: str | None = None

    def event(self, action: str, **fields: str | None) -> dict[str, Any]:
        """The event for an action, as the function would accept it.

        Raises:
            CommandError: it would not. The function's own check says so before anything is invoked.
        """
        target = {"secret_id": self.secret_id, "database": self.database, "schema": self.schema}
        event: dict[str, Any] = {"action": action, **_given(fields)}
        if _given(target):
            event["target"] = _given(target)
        try:
            parse_request(event)
        except InvalidRequest as error:
            raise CommandError(
                "InvalidRequest", str(error), ExitCode.USAGE, advice=f"See: migrate {action} --help"
            ) from None
        return event

    def function(self) -> Function:
        """The stage's function."""
        return stages.find(self.stage, self.region, self.profile)

    def commands(self, function: Function) -> Commands:
        """What may be typed next."""
        by_option = {"--region": self.region, "--profile": self.profile}
        options = [word for name, value in by_option.items() if value is not None for word in (name, value)]
        settings: tuple[str, ...] = ()
        aws_options = list(options)
        if function.emulator is not None:
            given = function.emulator.settings()
            settings = tuple(f"{name}={given[name]}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
            aws_options = ["--endpoint-url", function.emulator.endpoint, "--region", function.emulator.region]
        elif self.region is None and function.session.region_name:
            aws_options += ["--region", function.session.region_name]
        return Commands(
            program=program(),
            command=tuple(sys.argv[1:]),
            options=("--stage", self.stage, *options),
            log_group=function.log_group,
            aws_options=tuple(aws_options),
            settings=settings,
        )


def program() -> tuple[str, ...]:
    """How this program was called."""
    return ("migrate",) if Path(sys.argv[0]).name == "migrate" else ("python", "-m", "migrate_cli")


def confirm(call: Call, action: str, output: Output) -> None:
    """Let the person type the stage's name before production, or what is protected like it, is changed.

    Raises:
        UsageError: they typed another, or there is nobody to ask.
    """
    if action not in CHANGING or not stages.must_be_meant(call.stage):
        return
    if not sys.stdin.isatty():
        raise UsageError(
            f"{action} changes stage {call.stage}, and there is no terminal to confirm it; nothing was invoked",
            advice="If it is meant, say --yes.",
        )
    output.notes.print(f"{action} changes stage {call.stage}. Type the stage's name to go on: ", end="", markup=False)
    if sys.stdin.readline().strip() != call.stage:
        raise UsageError("that is not the stage's name; nothing was invoked")


def run(call: Call, event: Mapping[str, Any], output: Output, *, patience_s: float = 0) -> dict[str, Any]:
    """Invoke once; with patience again, while the contract says that this helps and that long has not passed.

    Raises:
        CommandError: no result in the end.
    """
    function = call.function()
    commands = call.commands(function)
    give_up = time.monotonic() + patience_s
    pause = _FIRST_PAUSE_S
    while True:
        try:
            return _once(function, event, commands, output)
        except CommandError as error:
            if error.exit_code is not ExitCode.AGAIN or time.monotonic() + pause > give_up:
                raise
            output.show_error(error)
            output.note(
                f"Invoking again in {pause:.0f} s, for at most {(give_up - time.monotonic()) / 60:.0f} min more."
            )
        try:
            time.sleep(pause)
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted",
                "stopped before invoking again; what the last run applied stays applied",
                ExitCode.INTERRUPTED,
                advice=f"Where the database is: {commands.named('status')}. To go on: {commands.again()}",
            ) from None
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _once(function: Function, event: Mapping[str, Any], commands: Commands, output: Output) -> dict[str, Any]:
    log = _log(function, event["action"], output)
    request_id = None
    try:
        with RunDisplay(output.notes, f"{event['action']} on {function.name}") as display:
            answer = invocation.begin(function, event, commands)
            while True:
                try:
                    result = answer.result(timeout=_TICK_S)
                except NotYet:
                    if not answer.done():
                        log = _follow(log, display)
                        request_id = log.request_id if log else request_id
                        continue
                    raise
                return result
    except KeyboardInterrupt:
        raise CommandError(
            "Interrupted",
            f"stopped waiting; {function.name} goes on with the {event['action']} until it is done",
            ExitCode.INTERRUPTED,
            advice=f"Where the database is: {commands.named('status')}. The log: {commands.log(request_id)}",
            request_id=request_id,
        ) from None


def _log(function: Function, action: str, output: Output) -> RunLog | None:
    if action not in _FOLLOWED:
        return None
    try:
        return RunLog(function, action)
    except UnreadableError as error:
        output.note(f"No progress will be shown, as the log cannot be read: {error}")
        return None


def _follow(log: RunLog | None, display: RunDisplay) -> RunLog | None:
    """Show what is new, and give the log as long as it can be read."""
    if log is None:
        display.show([])
        return None
    try:
        display.show(log.poll())
    except UnreadableError as error:
        display.print_folded(f"No more progress will be shown, as the log cannot be read: {error}")
        return None
    except Exception as error:  # noqa: BLE001 - a line that is not what we know must not end the waiting for the run
        display.print_folded(f"No more progress will be shown: {type(error).__name__}: {error}")
        return None
    return log


def places(call: Call, output: Output) -> dict[str, str | None]:
    """At which revision each stage is that answers; what keeps the others from it is noted."""
    found: dict[str, str | None] = {}
    for stage in [call.stage, *(other for other in stages.project().stages if other != call.stage)]:
        # Another stage may be in another region: its own of cdk.json, or the one that the AWS settings say.
        there = call if stage == call.stage else Call(stage, profile=call.profile)
        try:
            function = there.function()
            found[stage] = invocation.status(function, there.commands(function))["revision"]
        except CommandError as error:
            output.note(f"stage {stage} is not in the drawing: {error.kind}: {error.message}")
    return found


def _given(fields: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}
