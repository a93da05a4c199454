"""The commands and their options. `main` returns the exit code."""

from __future__ import annotations

import os
import sys
import traceback
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from migrate_cli import (
    __version__,
    actions,
    checkpoint,
    confirmation,
    earlier_runs,
    logs,
    mermaid,
    presentation,
    review,
)
from migrate_cli.actions import Call
from migrate_cli.errors import CommandError, ExitCode, UsageError, steps
from migrate_cli.options import Json, at_stage, at_target, examples
from migrate_cli.output import Output
from migrate_cli.rollout import commands as rollout
from migrate_cli.rollout import fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

app = typer.Typer(
    name="migrate",
    help="Run and inspect a stage's migrations. Exit codes: 0 success, 1 the migration failed, 2 wrong usage, 3 AWS,"
    " network or permission trouble, 4 incomplete or locked: the same command may succeed later.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - Typer passes the option's value
    if wanted:
        sys.stdout.write(f"migrate {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Add the options of `migrate` itself."""


class Format(str, Enum):
    """The formats of `history`."""

    TABLE = "table"
    MERMAID = "mermaid"


Yes = Annotated[
    bool, typer.Option("--yes", help="Do not ask for confirmation before a change of prod or a protected stage.")
]
Confirm = Annotated[
    str | None, typer.Option(help="The database's current revision, as status shows it. Omit it for an empty database.")
]
Upwards = Annotated[str | None, typer.Argument(help="head (the default), heads, a revision id or +N.")]
Downwards = Annotated[str | None, typer.Argument(help="base, a revision id or -N.")]
Anywhere = Annotated[str | None, typer.Argument(help="head, heads, base or a revision id.")]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="The same as the argument.")]


@app.command(
    epilog=examples(
        "migrate upgrade --stage dev",
        "migrate upgrade --stage dev --wait --json",
        "migrate upgrade +1 --stage dev --preflight enforce",
    )
)
@at_target
def upgrade(
    call: Call,
    revision: Upwards = None,
    revision_option: RevisionOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Retry while the migration is incomplete or locked.")] = False,
    wait_limit: Annotated[float, typer.Option(min=0, help="With --wait: give up after this many minutes.")] = 60,
    preflight: Annotated[
        str | None,
        typer.Option(
            help="off, warn, or enforce: refuse revisions that would fail on this database or block for long."
        ),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="Run in the stage's CodeBuild project, without Lambda's limit of 15 minutes.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", hidden=True)] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Apply the pending revisions, and show each one."""
    if dry_run:
        raise UsageError(
            "upgrade has no --dry-run",
            advice=steps(("To see the pending revisions and their SQL", call.commands().named("plan"))),
        )
    wanted = _one_of(revision, revision_option)
    if wait and wanted is not None and wanted.startswith("+"):
        raise UsageError("--wait with +N could apply more than N revisions", advice="Name the revision to end at.")
    return _act(
        "upgrade",
        call,
        {"revision": wanted, "preflight": preflight},
        as_json=as_json,
        yes=yes,
        patience_s=60 * wait_limit if wait else 0,
        long=long,
    )


@app.command(
    epilog=examples(
        "migrate plan --stage dev",
        "migrate plan --stage dev > plan.sql",
    )
)
@at_target
def plan(
    call: Call,
    revision: Upwards = None,
    revision_option: RevisionOption = None,
    as_json: Json = False,
) -> int:
    """Show the pending revisions and their SQL. Changes nothing."""
    return _act("plan", call, {"revision": _one_of(revision, revision_option)}, as_json=as_json)


@app.command(
    epilog=examples(
        "migrate status --stage dev",
        "migrate status --stage dev --database tenant_1 --json",
    )
)
@at_target
def status(call: Call, as_json: Json = False) -> int:
    """Show the database's revision, the pending revisions and the lock. Changes nothing."""
    return _act("status", call, as_json=as_json)


@app.command(
    epilog=examples(
        "migrate history --stage dev",
        "migrate history --stage dev --format mermaid",
    )
)
@at_stage
def history(
    call: Call,
    shape: Annotated[
        Format, typer.Option("--format", help="mermaid also draws the revision of each stage.")
    ] = Format.TABLE,
    as_json: Json = False,
) -> int:
    """List the revisions of the deployed package. Needs no database."""
    if shape is Format.TABLE:
        return _act("history", call, as_json=as_json)
    if as_json:
        raise UsageError("--json and --format mermaid exclude each other", advice="Pass only one of them.")

    def draw(result: Mapping[str, Any], console: Console) -> None:
        places = actions.places(call, Output("migrate history", as_json=False))
        console.print(mermaid.flowchart(result["history"], places), markup=False, soft_wrap=True)

    return _act("history", call, as_json=as_json, show=draw)


@app.command(
    epilog=examples(
        "migrate check --stage dev",
    )
)
@at_target
def check(call: Call, as_json: Json = False) -> int:
    """Compare the database with the models and the recorded schema. Fails if they differ. Changes nothing."""
    return _act("check", call, as_json=as_json)


@app.command(
    epilog=examples(
        "migrate doctor --stage dev",
        "migrate doctor --function my-function --region eu-central-1",
    )
)
@at_target
def doctor(call: Call, as_json: Json = False) -> int:
    """Test each step of the connection to the database. Fails if a step fails. Changes nothing."""
    return _act("doctor", call, as_json=as_json)


# Otherwise a revision such as -1 would be an option.
@app.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "migrate downgrade -1 --stage dev --confirm ad63c8f0e217",
    ),
)
@at_target
def downgrade(
    call: Call,
    revision: Downwards = None,
    revision_option: RevisionOption = None,
    confirm: Confirm = None,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Revert revisions. Needs `allow_downgrade` of the stage."""
    wanted = _one_of(revision, revision_option)
    return _act("downgrade", call, {"revision": wanted, "confirm": confirm}, as_json=as_json, yes=yes)


@app.command(
    epilog=examples(
        "migrate stamp head --stage dev --verify",
        "migrate stamp 05e7da3f9b68 --stage dev --confirm ad63c8f0e217",
    )
)
@at_target
def stamp(
    call: Call,
    revision: Anywhere = None,
    revision_option: RevisionOption = None,
    confirm: Confirm = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="First compare the database's schema with the revision's. Refuse if they differ."
        ),
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Set the version table without running a revision. Needs `allow_downgrade` of the stage, or --verify."""
    wanted = _one_of(revision, revision_option)
    fields = {"revision": wanted, "confirm": confirm, "verify": True if verify else None}
    return _act("stamp", call, fields, as_json=as_json, yes=yes)


@app.command(
    "logs", epilog=examples("migrate logs --stage dev", "migrate logs 8e7c2f4e-6a5d-4f2b-9d4c-3b1f0c9d2a11 --stage dev")
)
@at_stage
def show_logs(
    call: Call,
    request_id: Annotated[
        str | None, typer.Argument(help="The request id of the run. Default: the last run.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines unchanged.")] = False,
) -> int:
    """Show the log of one run."""
    output = Output(f"migrate logs ({call.stage})", as_json=as_json)
    try:
        return logs.show(call, request_id, output, as_json=as_json)
    except CommandError as error:
        return output.fail(error)


app.command(
    "review",
    epilog=examples(
        "migrate review",
        "migrate review head --backend ../my-api",
        "migrate review --since origin/main --format github",
        "migrate review --record",
    ),
)(review.review)
app.command(
    "checkpoint",
    epilog=examples(
        "migrate checkpoint",
        "migrate checkpoint --backend ../my-api --at 9ab1c2d3e4f5",
        "migrate checkpoint --allow rows:users",
    ),
)(checkpoint.checkpoint)
app.add_typer(rollout.app)
app.add_typer(fleet.app)


def main() -> int:
    """Run the command of these arguments, and return its exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the caller has closed it
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - closed by the caller
    # Needed before the arguments are parsed: a wrong command gets a JSON answer, too.
    output = Output("migrate", as_json="--json" in sys.argv)
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal cannot show must not raise an error.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        arguments = sys.argv[1:] or ["--help"]
        code = app(arguments, prog_name=" ".join(actions.program()), standalone_mode=False)
    except CommandError as error:
        code = output.fail(error)
    except TyperException as error:
        code = output.fail(UsageError(error.format_message(), advice=_usage(error)))
    except ModuleNotFoundError as error:
        code = output.fail(_not_installed(error))
    except Exception as error:  # noqa: BLE001 - a pipeline gets its one document and its exit code for any error
        if os.environ.get("MIGRATE_DEBUG"):
            traceback.print_exc()
        code = output.fail_by_fault(error)
    return int(code or ExitCode.OK)


def _act(
    action: str,
    call: Call,
    fields: Mapping[str, str | bool | None] | None = None,
    *,
    as_json: bool,
    yes: bool = False,
    patience_s: float = 0,
    long: bool = False,
    show: Callable[[Mapping[str, Any], Console], None] = presentation.show,
) -> int:
    """Run a command, show its result or error, and return the exit code."""
    output = Output(f"migrate {action} ({call.stage})", as_json=as_json)
    try:
        event = call.event(action, **(fields or {}))
        if not yes:
            confirmation.confirm(call, action, output, event.get("revision"))
        result = actions.run(call, event, output, patience_s=patience_s, long=long)

        def advice() -> str:
            note = earlier_runs.note(call.function(), result) if action == "plan" else ""
            return "\n".join(filter(None, (note, actions.next_step(action, result, call.commands()))))

        return output.succeed(result, show, advice)
    except CommandError as error:
        return output.fail(error)
    except KeyboardInterrupt:
        # While the function runs, Ctrl-C has another message.
        return output.fail(CommandError("Interrupted", "stopped; nothing is running", ExitCode.INTERRUPTED))


def _one_of(argument: str | None, option: str | None) -> str | None:
    if argument is not None and option is not None:
        raise UsageError("the revision was given twice", advice="Pass it once: REVISION, or --revision REVISION.")
    return option if argument is None else argument


def _not_installed(error: ModuleNotFoundError) -> CommandError:
    """Return the error for a command whose libraries need an extra of the installed package."""
    return CommandError(
        "NotInstalled",
        f"this command needs {error.name}, which is not installed",
        ExitCode.USAGE,
        advice="Install migrate with the extra review, or run the command of a checkout (docs/installing.md).",
    )


def _usage(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else " ".join(actions.program())
    return f"See: {command} --help"
