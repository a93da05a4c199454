"""``migrate rollout``: begin a rollout over a stage's targets, look at it, stop it, retry what failed."""

from __future__ import annotations

import getpass
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from botocore import exceptions
from typer.core import TyperGroup

from migrate_cli import actions, stages
from migrate_cli.actions import Call
from migrate_cli.errors import CommandError, ExitCode, UsageError
from migrate_cli.options import Json, at_stage
from migrate_cli.output import Output
from migrate_cli.rollout import display as rollout_shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from migrate_cli.rollout.machine import Machine, Progress

_POLL_S = 1.0
# Listing what a hundred thousand targets have come to takes seconds: most of the time is not for that.
_POLL_PART = 5
# AWS may be out of reach for so long before the looking is given up; the rollout needs nothing of it.
_PATIENCE_S = 300


class _StartsByDefault(TyperGroup):
    """Without the name of a command, it is `start`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - Typer keeps the type to itself
        if not args or args[0] not in {*self.commands, "--help"}:
            args = ["start", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="rollout",
    cls=_StartsByDefault,
    help="Migrate every target of a stage with its state machine. Exit codes: 0 ok, 1 the rollout failed, 2 wrong"
    " usage, 3 AWS, network or permission trouble, 4 stopped, or another one is running.",
    rich_markup_mode=None,
)

Page = Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write the report's page there, HTML.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before prod, or a protected stage, is changed.")]


@app.command()
@at_stage
def start(
    call: Call,
    plan: Annotated[
        bool, typer.Option("--plan", help="Ask every target where it is instead. Changes nothing; estimates.")
    ] = False,
    target: Annotated[list[str] | None, typer.Option(help="Only this one, by its name; as often as needed.")] = None,
    per_target: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="With --plan: what migrating one takes.")
    ] = None,
    page: Page = None,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Begin a rollout and follow it to its end (the default, without a command's name)."""
    if per_target is not None and not plan:
        raise UsageError("--per-target is for --plan")
    said: dict[str, Any] = {**({"plan": True} if plan else {}), **({"targets": target} if target else {})}

    def work(machine: Machine, output: Output) -> ExitCode:
        if plan and machine.bucket is None:
            machine.folder("")  # which says what to do instead
        if not (plan or yes):
            actions.confirm(call, "rollout", output)
        name = machine.start(said)
        return _end(machine, name, output, page, per_target_s=per_target)

    return _with_machine("rollout", call, work, as_json=as_json)


@app.command()
@at_stage
def retry(
    call: Call,
    of: Annotated[str | None, typer.Option("--of", help="That rollout; without it, the last one.")] = None,
    page: Page = None,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Begin a rollout of the targets that failed in the last one, and follow it."""

    def work(machine: Machine, output: Output) -> ExitCode:
        name = of or machine.latest()
        machine.must_have_failures(name)
        if not yes:
            actions.confirm(call, "rollout", output)
        return _end(machine, machine.start({"retry_of": name}), output, page)

    return _with_machine("rollout retry", call, work, as_json=as_json)


@app.command()
@at_stage
def status(
    call: Call,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for its end, and exit as it does.")] = False,
    page: Page = None,
    as_json: Json = False,
) -> int:
    """Show how far the rollout is that began last, or how it ended."""

    def work(machine: Machine, output: Output) -> ExitCode:
        name = machine.latest()
        if follow:
            return _end(machine, name, output, page)
        said = machine.execution(name)
        return _tell(machine, name, said, output, page, judge=False)

    return _with_machine("rollout status", call, work, as_json=as_json)


@app.command()
@at_stage
def stop(call: Call, page: Page = None, as_json: Json = False) -> int:
    """Let the running rollout begin no further target, and wait for those at work to end at a boundary."""

    def work(machine: Machine, output: Output) -> ExitCode:
        name = machine.latest()
        if machine.execution(name)["status"] != "RUNNING":
            raise UsageError(f"rollout {name} is not running: there is nothing to stop")
        machine.stop(name, _who())
        output.note(f"Rollout {name} begins nothing more; waiting for what is at work.")
        code = _end(machine, name, output, page)
        # That it was stopped is what was wanted.
        return ExitCode.OK if code is ExitCode.AGAIN else code

    return _with_machine("rollout stop", call, work, as_json=as_json)


def _with_machine(name: str, call: Call, work: Callable[[Machine, Output], ExitCode], *, as_json: bool) -> int:
    # It imports half of the function, which no other command needs.
    from migrate_cli.rollout import machine as rollout_machine  # noqa: PLC0415

    output = Output(f"migrate {name} ({call.stage})", as_json=as_json)
    try:
        return work(rollout_machine.find(call), output)
    except CommandError as error:
        return output.fail(error)
    except KeyboardInterrupt:
        return output.fail(CommandError("Interrupted", "no rollout was begun", ExitCode.INTERRUPTED))


def _end(
    machine: Machine, name: str, output: Output, page: Path | None, *, per_target_s: float | None = None
) -> ExitCode:
    """Follow an execution and tell how it ended."""
    try:
        said = _follow(machine, name, output)
    except KeyboardInterrupt:
        raise CommandError(
            "Interrupted",
            f"stopped looking; rollout {name} goes on",
            ExitCode.INTERRUPTED,
            advice=f"How far it is: {machine.commands.named('rollout status')}. To stop it:"
            f" {machine.commands.named('rollout stop')}",
        ) from None
    return _tell(machine, name, said, output, page, per_target_s=per_target_s)


def _follow(machine: Machine, name: str, output: Output) -> Mapping[str, Any]:
    """Show how far it is until it has ended, and give what Step Functions says of it then."""
    from migrate_cli.rollout.machine import RUNNING, Progress  # noqa: PLC0415 - as above

    progress = Progress()
    tell_failures = in_reach = True
    reached = time.monotonic()
    with rollout_shown.Display(output.notes, f"rollout {name} on {machine.name}") as display:
        while True:
            began = time.monotonic()
            try:
                said = machine.execution(name)
                if said["status"] != RUNNING:
                    return said
                if machine.bucket is not None:
                    progress.look(machine, name)
                    tell_failures = tell_failures and _tell_failures(machine, progress, display)
                    display.show(progress)
                reached, in_reach = time.monotonic(), True
            except CommandError as error:
                if not _passes(error) or time.monotonic() - reached > _PATIENCE_S:
                    error.advice = f"Rollout {name} goes on all the same. {error.advice}"
                    raise
                if in_reach:
                    display.say(f"cannot look at the moment: {error.message}")
                in_reach = False
            time.sleep(max(_POLL_S, _POLL_PART * (time.monotonic() - began)))


def _passes(error: CommandError) -> bool:
    """Whether it is the network's or AWS's own trouble, and not a permission or a login."""
    return error.kind.startswith(
        ("Throttling", "TooManyRequests", "ServiceUnavailable", "InternalError", "SlowDown")
    ) or (
        isinstance(getattr(exceptions, error.kind, None), type)
        and issubclass(getattr(exceptions, error.kind), (exceptions.HTTPClientError, exceptions.ConnectionError))
    )


def _tell_failures(machine: Machine, progress: Progress, display: rollout_shown.Display) -> bool:
    while progress.new_failures:
        key = progress.new_failures.pop(0)
        with machine.asked("s3:GetObject"):
            found = machine.folder("").bucket.read(key)
        if found and not display.failed(found[0]["name"], found[0]["error_type"], found[0]["message"]):
            return False
    return True


def _tell(
    machine: Machine,
    name: str,
    said: Mapping[str, Any],
    output: Output,
    page: Path | None,
    *,
    judge: bool = True,
    per_target_s: float | None = None,
) -> ExitCode:
    """Show the report, and judge how it ended unless only a look was asked for."""
    from migrate_cli.rollout import machine as rollout_machine  # noqa: PLC0415 - as above

    if machine.bucket is None:
        return _tell_of_one(machine, name, said, output)
    report = machine.report(name, said["status"]) if said.get("error") != "AlreadyRunning" else None
    if report is None:
        if said["status"] == rollout_machine.RUNNING:
            raise CommandError("NotListed", f"rollout {name} is still listing its targets", ExitCode.AGAIN)
        raise rollout_machine.failure(machine, said)
    if said["status"] != rollout_machine.RUNNING:
        report["report"] = machine.where(name, "report.html")
    if report["plan"] and report["status"] == "succeeded":
        report["estimate"] = _estimate(machine, name, per_target_s)
    if page is not None:
        _write_page(machine, name, page, output)
    error = _judged(machine, report) if judge else None
    return output.report(report, partial(rollout_shown.show_report, whole=error is None), error)


def _judged(machine: Machine, report: Mapping[str, Any]) -> CommandError | None:
    commands = machine.commands
    if report["status"] == "succeeded":
        return None
    on = f"To go on: {commands.named('rollout')}"
    if report["status"] == "failed":
        look = f"Once the cause is gone, those that failed: {commands.named('rollout retry')}. "
        return CommandError(
            "RolloutFailed", report["message"], ExitCode.FAILED, advice=look * bool(report["failures"]) + on
        )
    return CommandError("RolloutStopped", report["message"], ExitCode.AGAIN, advice=on)


def _tell_of_one(machine: Machine, name: str, said: Mapping[str, Any], output: Output) -> ExitCode:
    """Of a stage without targets: the machine's output is the function's own result."""
    from migrate_cli.rollout import machine as rollout_machine  # noqa: PLC0415 - as above

    if said["status"] == rollout_machine.RUNNING:
        output.note(
            f"{name} is running since {said['startDate']:%H:%M:%S}. Where it is: {machine.commands.named('status')}"
        )
        return ExitCode.OK
    if said["status"] != "SUCCEEDED":
        raise rollout_machine.failure(machine, said)
    return output.succeed(json.loads(said["output"]))


def _estimate(machine: Machine, name: str, per_target_s: float | None) -> dict[str, Any]:
    from migrate_cli.rollout.estimate import estimate  # noqa: PLC0415 - as above

    folder = machine.folder(name)
    with machine.asked("s3:GetObject", "s3:ListBucket"):
        stage = stages.project().stages.get(machine.stage)
        return estimate(folder.read("rollout.json"), folder.outcomes(), stage, per_target_s).as_json()


def _write_page(machine: Machine, name: str, file: Path, output: Output) -> None:
    content = machine.page(name)
    if content is None:
        output.note(f"rollout {name} has no page yet: it is written at the end")
        return
    try:
        file.write_bytes(content)
    except OSError as error:
        raise CommandError("ReportNotWritten", str(error), ExitCode.USAGE) from None


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in containers
        return "migrate rollout stop"
