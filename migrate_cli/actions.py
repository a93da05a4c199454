"""The work of a command between its options and its output: invoke, follow, retry."""

from __future__ import annotations

import shlex
import sys
import time
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_migrate.invocation.errors import InvalidRequest
from lambda_migrate.invocation.request import parse_request
from migrate_cli import invocation, long_run, stages
from migrate_cli.errors import (
    CommandError,
    Commands,
    ExitCode,
    LambdaFailed,
    NoAnswer,
    NotInvoked,
    interrupted_as,
    steps,
)
from migrate_cli.follower import FOLLOWED, Follower
from migrate_cli.lost_answer import LostAnswer
from migrate_cli.progress import RunDisplay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from migrate_cli.output import Output
    from migrate_cli.stages import Function

_TICK_S = 0.2
_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0
# A function that was idle for weeks needs minutes until its network interfaces exist again.
_WAKING_PAUSES_S = (2, 4, 8, 15, 30, 30, 30, 30, 30)


@dataclass(frozen=True)
class Call:
    """The options that every command has: the stage, the way to AWS, and the target."""

    stage: str
    region: str | None = None
    profile: str | None = None
    secret_id: str | None = None
    database: str | None = None
    schema: str | None = None
    # The function's own name, instead of a stage in cdk.json. Then ``stage`` has the same value, for messages.
    function_name: str | None = None

    def event(self, action: str, **fields: str | bool | None) -> dict[str, Any]:
        """Return the event for an action, as the function accepts it.

        Raises:
            CommandError: the function would refuse it. Its own check runs here, before anything is invoked.
        """
        target: dict[str, str | bool | None] = {
            "secret_id": self.secret_id,
            "database": self.database,
            "schema": self.schema,
        }
        event: dict[str, Any] = {"action": action, **_given(fields)}
        if _given(target):
            event["target"] = _given(target)
        try:
            parse_request(event)
        except InvalidRequest as error:
            raise CommandError(
                "InvalidRequest", str(error), ExitCode.USAGE, advice=f"See: {shlex.join(program())} {action} --help"
            ) from None
        return event

    def function(self) -> Function:
        """Return the stage's function."""
        if self.function_name is not None:
            return stages.named(self.function_name, self.region, self.profile)
        return stages.find(self.stage, self.region, self.profile)

    def commands(self) -> Commands:
        """Return the commands to suggest as the next step."""
        options = _options({"--region": self.region, "--profile": self.profile})
        target = _options({"--secret-id": self.secret_id, "--database": self.database, "--schema": self.schema})
        return Commands(
            program=program(), command=tuple(sys.argv[1:]), options=(*self._place(), *options), target=target
        )

    def _place(self) -> tuple[str, str]:
        return ("--stage", self.stage) if self.function_name is None else ("--function", self.function_name)


def program() -> tuple[str, ...]:
    """Return the command with which this program was started."""
    return ("migrate",) if Path(sys.argv[0]).name == "migrate" else ("python", "-m", "migrate_cli")


def run(
    call: Call, event: Mapping[str, Any], output: Output, *, patience_s: float = 0, long: bool = False
) -> dict[str, Any]:
    """Invoke once. With patience, retry as long as the contract allows it and the time is not over.

    A ``long`` run is not an invocation but a build of the stage's project for long runs.

    Raises:
        CommandError: no result in the end.
    """
    function = call.function()
    commands = call.commands()
    give_up = time.monotonic() + patience_s
    pause = _FIRST_PAUSE_S
    while True:
        try:
            return _once(function, event, commands, output, long=long)
        except CommandError as error:
            if error.exit_code is not ExitCode.AGAIN or time.monotonic() + pause > give_up:
                raise
            output.show_error(error)
            output.note(
                f"Invoking again in {pause:.0f} s, for at most {(give_up - time.monotonic()) / 60:.0f} min more."
            )
        with interrupted_as(
            "stopped before invoking again; revisions of the last run stay applied",
            steps(("The database's state", commands.named("status")), ("To continue", commands.again())),
        ):
            time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _once(
    function: Function, event: Mapping[str, Any], commands: Commands, output: Output, *, long: bool
) -> dict[str, Any]:
    follower = Follower(function, str(event["action"]), output)
    try:
        with RunDisplay(output.notes, f"{event['action']} on {function.name}") as display:
            if long:
                return long_run.follow(function, event, commands, follower, display)
            for pause in _WAKING_PAUSES_S:
                try:
                    return _answer(function, event, commands, follower, display)
                except NotInvoked as error:
                    why = "Lambda itself failed" if isinstance(error, LambdaFailed) else "nothing has run yet"
                    display.print_folded(f"{error.kind}: {why}; invoking again in {pause} s")
                    time.sleep(pause)
            return _answer(function, event, commands, follower, display)
    except KeyboardInterrupt:
        raise CommandError(
            "Interrupted",
            f"stopped waiting; {function.name} continues the {event['action']} until its end",
            ExitCode.INTERRUPTED,
            advice=steps(
                ("The database's state", commands.named("status")), ("The log", commands.log(follower.request_id))
            ),
            request_id=follower.request_id,
        ) from None
    except CommandError as error:
        error.run = follower.failed_run(error)
        # The emulator's answer has a request id that its log does not have.
        if function.emulator is not None:
            error.request_id = follower.request_id
        raise


def _answer(
    function: Function, event: Mapping[str, Any], commands: Commands, follower: Follower, display: RunDisplay
) -> dict[str, Any]:
    """Invoke, and return the answer. If it does not come, return the result from the log and the status."""
    answer = invocation.begin(function, event, commands)
    lost = LostAnswer(function, event, commands, follower)
    while not answer.done():
        futures.wait([answer], timeout=_TICK_S)
        follower.show(display)
        if follower.is_overdue() and (result := lost.result_if_certain()) is not None:
            return result
    try:
        return answer.result()
    except NoAnswer as error:
        if event["action"] not in FOLLOWED:
            raise
        display.print_folded(f"{error.message}; reading the result from the log and the database instead")
        return lost.wait(error, display)


def places(call: Call, output: Output) -> dict[str, str | None]:
    """Return the revision of each stage that answers, and note the error of each other one."""
    found: dict[str, str | None] = {}
    others = stages.project().stages if call.function_name is None else ()
    for stage in [call.stage, *(other for other in others if other != call.stage)]:
        # Another stage may be in another region: the one in cdk.json, or that of the AWS settings.
        there = call if stage == call.stage else Call(stage, profile=call.profile)
        try:
            function = there.function()
            found[stage] = invocation.status(function, there.commands())["revision"]
        except CommandError as error:
            output.note(f"stage {stage} is not in the drawing: {error.kind}: {error.message}")
    return found


def next_step(action: str, result: Mapping[str, Any], commands: Commands) -> str:
    """Return the next step after a read-only action, as a sentence and a command, or nothing."""
    if action == "doctor" and not result.get("healthy", True):
        return steps(("After you have fixed the first of these", commands.named("doctor")))
    if action == "plan" and result.get("plan"):
        verdicts = {(entry.get("preflight") or {}).get("verdict") for entry in result["plan"]}
        if "fails" in verdicts:
            return steps(("After you have fixed the rows", commands.named("plan")))
        return steps(("To apply this", commands.named("upgrade")))
    if action == "downgrade" and result.get("reverted"):
        return steps(("To see the database's state", commands.named("status")))
    return ""


def _options(by_name: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(word for name, value in by_name.items() if value is not None for word in (name, value))


def _given(fields: Mapping[str, str | bool | None]) -> dict[str, str | bool]:
    return {name: value for name, value in fields.items() if value is not None}
