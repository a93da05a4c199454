"""``migrate rollout``: start, follow, stop and retry a rollout over a stage's targets."""

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

from lambda_migrate.fleet.folder import PAGE, ROLLOUT
from lambda_migrate.invocation.wording import counted
from migrate_cli import confirmation, stages
from migrate_cli.actions import Call
from migrate_cli.errors import CommandError, ExitCode, UsageError, interrupted_as, steps
from migrate_cli.options import Json, at_stage, examples
from migrate_cli.output import Output
from migrate_cli.rollout.estimate import estimate
from migrate_cli.rollout.machine import ABORTED, ALREADY_RUNNING, RUNNING, SUCCEEDED, Machine, execution_error, find
from migrate_cli.rollout.progress import RolloutProgress
from migrate_cli.rollout.terminal import RolloutDisplay, show_line, show_report, show_rollouts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

_POLL_S = 1.0
# Listing the outcomes of 100,000 targets takes seconds, so the pause is four times as long as the last listing.
_POLL_PART = 5
# AWS may be unreachable for this long before the command gives up. The rollout does not depend on the command.
_PATIENCE_S = 300


class _StartsByDefault(TyperGroup):
    """A group that runs `start` if the arguments name no command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - Typer keeps the type to itself
        if not args or args[0] not in {*self.commands, "--help", "-h"}:
            args = ["start", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        self.commands["start"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        self.commands["start"].format_epilog(ctx, formatter)


app = typer.Typer(
    name="rollout",
    cls=_StartsByDefault,
    help="Migrate every target of a stage with its state machine. Exit codes: 0 success, 1 the rollout failed, 2 wrong"
    " usage, 3 AWS, network or permission trouble, 4 stopped, or another rollout is running.",
    rich_markup_mode=None,
)

Page = Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write the HTML report to this file.")]
Name = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The rollout's name. Default: the last one.", show_default=False)
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Do not ask for confirmation before a change of prod or a protected stage.")
]


@app.command(
    epilog=examples("migrate rollout --stage prod --plan", "migrate rollout --stage prod --report report.html")
)
@at_stage
def start(
    call: Call,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Only read the revision of every target, and estimate the rollout. Changes nothing."
        ),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare every target's schema with the packaged tree's. Changes nothing.")
    ] = False,
    target: Annotated[list[str] | None, typer.Option(help="Only the target of this name. Repeatable.")] = None,
    approved: Annotated[
        str | None, typer.Option(metavar="NAME", help="Run the plan of this name, if nothing has changed since.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Leave out the target of this name. Repeatable.")] = None,
    downgrade_to: Annotated[
        str | None,
        typer.Option(
            metavar="REVISION", help="Revert to this revision at the targets that --migrated-by has migrated."
        ),
    ] = None,
    migrated_by: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --downgrade-to: the name of that rollout.")
    ] = None,
    per_target: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="With --plan: the seconds that one target takes.")
    ] = None,
    page: Page = None,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Start a rollout and follow it to its end (the default command)."""
    if per_target is not None and not plan:
        raise UsageError("--per-target needs --plan")
    if check and plan:
        raise UsageError("--check and --plan exclude each other", advice="Leave out one of them.")
    plan = plan or check
    if approved is not None and (plan or target or exclude):
        raise UsageError("--approved runs a plan unchanged", advice="Leave out --plan, --target and --exclude.")
    if (downgrade_to is None) != (migrated_by is None):
        raise UsageError("--downgrade-to and --migrated-by need each other")
    if downgrade_to is not None and (plan or approved is not None):
        raise UsageError("--downgrade-to excludes --plan and --approved")
    execution_input: dict[str, Any] = {
        **({"plan": True} if plan else {}),
        **({"check": True} if check else {}),
        **({"targets": target} if target else {}),
        **({"approved": approved} if approved is not None else {}),
        **({"exclude": exclude} if exclude else {}),
        **({"downgrade_to": downgrade_to, "migrated_by": migrated_by} if downgrade_to is not None else {}),
    }

    def work(machine: Machine, output: Output) -> ExitCode:
        if execution_input and machine.bucket is None:
            machine.folder("")  # raises the error that names the commands to use instead
        if not (plan or yes):
            confirmation.confirm(call, "rollout", output, of_targets=_facts(machine, execution_input))
        name = machine.start(execution_input)
        return _end(machine, name, output, page, per_target_s=per_target)

    return _with_machine("rollout", call, work, as_json=as_json)


@app.command(epilog=examples("migrate rollout retry --stage prod"))
@at_stage
def retry(
    call: Call,
    rollout: Name = None,
    of: Annotated[str | None, typer.Option("--of", hidden=True)] = None,
    page: Page = None,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Start a rollout of the targets that failed in an earlier one, and follow it."""

    def work(machine: Machine, output: Output) -> ExitCode:
        name = rollout or of or machine.latest()
        machine.must_have_failures(name)
        if not yes:
            confirmation.confirm(call, "rollout", output, of_targets=_facts(machine, {"retry_of": name}))
        return _end(machine, machine.start({"retry_of": name}), output, page)

    return _with_machine("rollout retry", call, work, as_json=as_json)


@app.command(epilog=examples("migrate rollout status --stage prod --follow"))
@at_stage
def status(
    call: Call,
    rollout: Name = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Follow it to its end, and exit with its exit code.")
    ] = False,
    page: Page = None,
    as_json: Json = False,
) -> int:
    """Show the progress or the result of a rollout."""

    def work(machine: Machine, output: Output) -> ExitCode:
        name = rollout or machine.latest()
        if follow:
            return _end(machine, name, output, page)
        return _show_outcome(machine, machine.remembered(name), output, page, judge=False)

    return _with_machine("rollout status", call, work, as_json=as_json)


@app.command(epilog=examples("migrate rollout approve 20261127T101500Z-1a2b3c --stage prod"))
@at_stage
def approve(
    call: Call, rollout: Annotated[str, typer.Argument(help="Its name.")], yes: Yes = False, as_json: Json = False
) -> int:
    """Approve the next wave of a rollout that waits for an approval."""

    def work(machine: Machine, output: Output) -> ExitCode:
        if not yes:
            confirmation.confirm(call, "rollout", output, of_targets={"targets": f"the next wave of {rollout}"})
        with _may_be("approved", machine, rollout):
            machine.approve(rollout, _who())
        result = {"action": "rollout approve", "stage": machine.stage, "rollout": rollout, "status": "approved"}
        follow = steps(("To follow it", machine.commands.named(f"rollout status {rollout} --follow")))
        text = f"Rollout {rollout} starts its next wave."
        return output.succeed(result, lambda _, console: show_line(text, console), lambda: follow)

    return _with_machine("rollout approve", call, work, as_json=as_json)


@app.command(epilog=examples("migrate rollout stop --stage prod"))
@at_stage
def stop(call: Call, rollout: Name = None, page: Page = None, as_json: Json = False) -> int:
    """Stop the running rollout: start no further target, and wait for the running ones to end cleanly."""

    def work(machine: Machine, output: Output) -> ExitCode:
        name = rollout or machine.latest()
        if machine.execution(name)["status"] != RUNNING:
            raise UsageError(
                f"rollout {name} is not running: there is nothing to stop",
                advice=steps(("Its report", machine.commands.named(f"rollout show {name}"))),
            )
        with _may_be("stopped", machine, name):
            no_wait = machine.stop(name, _who())
            if machine.bucket is None:
                return _stopped(machine, name, output)
        output.note(f"Rollout {name} starts no further target; waiting for the running ones.")
        if not no_wait:
            output.note(
                "The caller may not end a wait for an approval (states:SendTaskFailure). If the rollout waits for one,"
                " it ends when somebody approves it, or when the time for the approval is over."
            )
        code = _end(machine, name, output, page)
        # For this command, a stopped rollout is a success.
        return ExitCode.OK if code is ExitCode.AGAIN else code

    return _with_machine("rollout stop", call, work, as_json=as_json)


@app.command(epilog=examples("migrate rollout show 20261127T101500Z-1a2b3c --stage prod"))
@at_stage
def show(
    call: Call, rollout: Annotated[str, typer.Argument(help="Its name.")], page: Page = None, as_json: Json = False
) -> int:
    """Show the report of a rollout or a plan."""

    def work(machine: Machine, output: Output) -> ExitCode:
        return _show_outcome(machine, machine.remembered(rollout), output, page, judge=False)

    return _with_machine("rollout show", call, work, as_json=as_json)


@app.command("list", epilog=examples("migrate rollout list --stage prod"))
@at_stage
def show_list(
    call: Call,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows.")] = 20,
    as_json: Json = False,
) -> int:
    """List the stage's rollouts and plans, the newest first."""

    def work(machine: Machine, output: Output) -> ExitCode:
        entries = []
        for listed in machine.rollouts()[:limit]:
            ended, counts = machine.ended_as(listed)
            kind = "plan" if listed.plan else "rollout"
            entry = {"rollout": listed.name, "started": listed.started, "kind": kind, "status": ended}
            entries.append({**entry, "targets": listed.targets, "counts": dict(counts)})
        return output.succeed({"action": "rollouts", "stage": call.stage, "rollouts": entries}, show_rollouts)

    return _with_machine("rollout list", call, work, as_json=as_json)


def _with_machine(name: str, call: Call, work: Callable[[Machine, Output], ExitCode], *, as_json: bool) -> int:
    output = Output(f"migrate {name} ({call.stage})", as_json=as_json)
    try:
        return work(find(call), output)
    except CommandError as error:
        return output.fail(error)
    except KeyboardInterrupt:
        return output.fail(CommandError("Interrupted", "nothing was started or stopped", ExitCode.INTERRUPTED))


def _may_be(done: str, machine: Machine, name: str) -> AbstractContextManager[None]:
    """Return a context for a call that may have had its effect when somebody interrupts it."""
    look = steps(("To check", machine.commands.named(f"rollout status {name}")))
    return interrupted_as(f"rollout {name} may be {done}", look)


def _end(
    machine: Machine, name: str, output: Output, page: Path | None, *, per_target_s: float | None = None
) -> ExitCode:
    """Follow an execution to its end, show its outcome and return the exit code."""
    look = steps(
        ("Its progress", machine.commands.named(f"rollout status {name}")),
        ("To stop it", machine.commands.named(f"rollout stop {name}")),
    )
    with interrupted_as(f"stopped following; rollout {name} continues if it has not ended", look):
        execution = _follow(machine, name, output)
        return _show_outcome(machine, execution, output, page, per_target_s=per_target_s)


def _stopped(machine: Machine, name: str, output: Output) -> ExitCode:
    """Show that the execution of a stage without targets was stopped, or how it ended before that."""
    execution = _follow(machine, name, output)
    if execution["status"] != ABORTED:
        return _show_outcome(machine, execution, output, None)
    look = steps(("The database's state", machine.commands.named("status")))
    result = {"action": "rollout stop", "stage": machine.stage, "rollout": name, "status": "stopped"}
    text = f"Rollout {name} is stopped. A running function ends by itself."
    return output.succeed(result, lambda _, console: show_line(text, console), lambda: look)


def _follow(machine: Machine, name: str, output: Output) -> Mapping[str, Any]:
    """Show the progress of an execution until it has ended, and return its description by Step Functions."""
    progress = RolloutProgress()
    in_reach = True
    reached = time.monotonic()
    approval: str | None = None
    with RolloutDisplay(output.notes, f"rollout {name} on {machine.name}") as display:
        while True:
            began = time.monotonic()
            try:
                execution = machine.execution(name)
                if execution["status"] != RUNNING:
                    return execution
                if machine.bucket is not None:
                    progress.look(machine, name)
                    if progress.approval is not None and progress.approval != approval:
                        display.print(_approval_steps(machine, name))
                        approval = progress.approval
                    _show_failures(machine, progress, display)
                    display.show(progress)
                reached, in_reach = time.monotonic(), True
            except CommandError as error:
                if not _is_temporary(error) or time.monotonic() - reached > _PATIENCE_S:
                    error.advice = f"Rollout {name} continues.\n{error.advice}"
                    raise
                if in_reach:
                    display.print(f"AWS does not answer at the moment: {error.message}")
                in_reach = False
            time.sleep(max(_POLL_S, _POLL_PART * (time.monotonic() - began)))


def _next_step(machine: Machine, name: str) -> str:
    """Return the next step for a running rollout."""
    # Most rollouts never ask for an approval. Without a request, the outcomes need not be listed a second time.
    if machine.approval_request(name) is not None:
        progress = RolloutProgress()
        progress.look(machine, name)
        if progress.approval is not None:
            return _approval_steps(machine, name)
    return steps(("To follow it", machine.commands.named(f"rollout status {name} --follow")))


def _approval_steps(machine: Machine, name: str) -> str:
    waits = "The next wave waits for an approval."
    return f"{waits}\n" + steps(
        ("To approve it", machine.commands.named(f"rollout approve {name}")),
        ("To stop the rollout", machine.commands.named(f"rollout stop {name}")),
    )


def _is_temporary(error: CommandError) -> bool:
    """Return whether the error is temporary: the network's or AWS's own, and not a permission or a login."""
    return error.kind.startswith(
        ("Throttling", "TooManyRequests", "ServiceUnavailable", "InternalError", "SlowDown")
    ) or (
        isinstance(getattr(exceptions, error.kind, None), type)
        and issubclass(getattr(exceptions, error.kind), (exceptions.HTTPClientError, exceptions.ConnectionError))
    )


def _show_failures(machine: Machine, progress: RolloutProgress, display: RolloutDisplay) -> None:
    """Print the targets that have failed since the last listing, up to the display's limit."""
    while progress.new_failures and display.has_room_for_failures:
        key = progress.new_failures.pop(0)
        with machine.calling("s3:GetObject"):
            found = machine.folder("").bucket.read(key)
        if found:
            display.print_failure(found[0]["name"], found[0]["error_type"], found[0]["message"])


def _show_outcome(
    machine: Machine,
    execution: Mapping[str, Any],
    output: Output,
    page: Path | None,
    *,
    judge: bool = True,
    per_target_s: float | None = None,
) -> ExitCode:
    """Show an execution's report. Without ``judge``, a failed rollout is not an error of this command."""
    name, running = execution["name"], execution["status"] == RUNNING
    if machine.bucket is None:
        return _show_result(machine, execution, output)
    report = machine.report(execution) if execution.get("error") != ALREADY_RUNNING else None
    if report is None:
        if running:
            raise CommandError(
                "NotListed",
                f"rollout {name} is still listing its targets",
                ExitCode.AGAIN,
                advice=steps(("In a moment", machine.commands.named(f"rollout status {name}"))),
            )
        raise execution_error(machine, execution)
    if not running and machine.page(name) is not None:
        report["report"] = machine.where(name, PAGE)
    if report["plan"] and "schema" not in report and report["status"] == "succeeded":
        report["estimate"] = _estimate(machine, name, per_target_s)
    if page is not None:
        _write_page(machine, name, page, output)
    error = _error_of(machine, report) if judge else None
    show = partial(show_report, whole=error is None, commands=machine.commands)
    return output.report(report, show, error, advice=_next_step(machine, name) if running else "")


def _facts(machine: Machine, execution_input: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the targets and the revision to confirm, or None if the stage has only its own database."""
    if machine.bucket is None:
        return None
    which = {
        "approved": "those of the plan {}",
        "migrated_by": "those that {} has migrated",
        "retry_of": "those that failed in {}",
    }
    found = [words.format(execution_input[name]) for name, words in which.items() if name in execution_input]
    targets = "; ".join([*found, *execution_input.get("targets", ())]) or "all"
    if left_out := execution_input.get("exclude"):
        targets += f", without {', '.join(left_out)}"
    return {"targets": targets, "to": execution_input.get("downgrade_to", "head")}


def _error_of(machine: Machine, report: Mapping[str, Any]) -> CommandError | None:
    commands = machine.commands
    if report["status"] == "succeeded":
        # A function of an earlier version writes no ``check``.
        return _drift(report) if report.get("check") or report.get("schema") else None
    if report.get("downgrade_to"):
        # A retry or another rollout would upgrade.
        back = f"rollout --downgrade-to {report['downgrade_to']} --migrated-by {report['migrated_by']}"
        return _unsuccessful(
            report, steps(("After you have fixed the cause, revert the remaining ones", commands.named(back)))
        )
    on = ("To continue", commands.named("rollout"))
    if report["status"] == "failed":
        retry_it = commands.named(f"rollout retry {report['rollout']}")
        again = [("After you have fixed the cause, retry the failed targets", retry_it)] if report["failures"] else []
        return _unsuccessful(report, steps(*again, *([on] if report["counts"]["left"] or not again else [])))
    return _unsuccessful(report, steps(on))


def _unsuccessful(report: Mapping[str, Any], advice: str) -> CommandError:
    if report["status"] == "failed":
        return CommandError("RolloutFailed", report["message"], ExitCode.FAILED, advice=advice)
    return CommandError("RolloutStopped", report["message"], ExitCode.AGAIN, advice=advice)


def _drift(report: Mapping[str, Any]) -> CommandError | None:
    """Return the error of a check that found different schemas, or could not compare all of them."""
    targets = report["counts"]["targets"]
    found = dict.fromkeys(("equal", "different"), 0)
    for group in report.get("schema", ()):
        if group["schema"] in found:
            found[group["schema"]] += group["targets"]
    if found["different"]:
        return CommandError(
            "DriftDetected",
            f"{found['different']:,} of {counted(targets, 'target')}: the schema differs from the tree's",
            ExitCode.FAILED,
            advice="Write the missing revision, or revert the changes in these databases by hand.",
        )
    if missing := targets - found["equal"]:
        return CommandError(
            "RolloutFailed",
            f"{missing:,} of {counted(targets, 'target')}: the schema was not compared",
            ExitCode.FAILED,
            advice="Record the revisions with `migrate review --record` and deploy, or correct the failed targets.",
        )
    return None


def _show_result(machine: Machine, execution: Mapping[str, Any], output: Output) -> ExitCode:
    """Show the execution of a stage without targets. Its output is the function's own result."""
    if execution["status"] == RUNNING:
        output.note(f"{execution['name']} is running since {execution['startDate']:%H:%M:%S}.")
        output.note(steps(("The database's state", machine.commands.named("status"))))
        return ExitCode.OK
    if execution["status"] != SUCCEEDED:
        raise execution_error(machine, execution)
    return output.succeed(json.loads(execution["output"]))


def _estimate(machine: Machine, name: str, per_target_s: float | None) -> dict[str, Any]:
    folder = machine.folder(name)
    try:
        stage = stages.project().stages.get(machine.stage)
    except UsageError:  # with --function, no cdk.json is needed
        stage = None
    with machine.calling("s3:GetObject", "s3:ListBucket"):
        return estimate(folder.read(ROLLOUT), folder.outcomes(), stage, per_target_s).as_json()


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
        return "an unknown user"
