"""``migrate logs``: the log lines of one run."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from botocore import exceptions

from migrate_cli import invocation
from migrate_cli.errors import CommandError, ExitCode, NoAnswer, UsageError, steps
from migrate_cli.presentation import plain
from migrate_cli.run_log import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from migrate_cli.actions import Call
    from migrate_cli.output import Output
    from migrate_cli.stages import Function

# Fields of a line that are shown below its message.
_DETAILS = ("file", "line", "statement", "sqlstate", "detail", "hint", "blocking_pids")
_ADVICE: Mapping[str, str] = {
    **dict.fromkeys(invocation.DENIED, "The caller needs logs:FilterLogEvents on it."),
    **dict.fromkeys(invocation.CREDENTIALS, invocation.NO_CREDENTIALS),
    "ResourceNotFoundException": "The function has not run in this account and region, or is not deployed there.",
}
_COLOURS: Mapping[str, str] = {"ERROR": "bold red", "CRITICAL": "bold red", "WARNING": "yellow"}


def show(call: Call, request_id: str | None, output: Output, *, as_json: bool) -> ExitCode:
    """Print the lines of a request or of the last run, formatted or unchanged.

    Raises:
        CommandError: they cannot be read, or there are none.
    """
    function = call.function()
    count = 0
    try:
        for time_ms, message in messages(function, request_id):
            count += 1
            if as_json:
                sys.stdout.write(f"{message}\n")
            else:
                _print(output, time_ms, message)
    except exceptions.ClientError as error:
        raise _unreadable(
            function, error, _ADVICE.get(_code(error), steps(("Later", call.commands().again())))
        ) from None
    except exceptions.BotoCoreError as error:
        unreached = invocation.unreached(error, call.commands())
        # The function is not involved, so that it may still run is no help here.
        if isinstance(unreached, NoAnswer):
            raise _unreadable(function, error, steps(("Again", call.commands().again()))) from None
        raise unreached from None
    if not count:
        what = f"has no line of request {request_id}" if request_id else "has no run of the last 24 hours"
        raise UsageError(f"the log {function.log_group} {what}", advice="A new run's lines take seconds to arrive.")
    return ExitCode.OK


def _code(error: exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _unreadable(function: Function, error: Exception, advice: str) -> CommandError:
    message = f"the log {function.log_group} cannot be read: {error}"
    return CommandError("LogUnreadable", message, ExitCode.AWS, advice=advice)


def _print(output: Output, time_ms: int, message: str) -> None:
    at = datetime.fromtimestamp(time_ms / 1000, timezone.utc).strftime("%H:%M:%S.%f")[:-3]
    line = _parsed(message)
    if line is None:
        output.results.print(f"{at} {plain(message)}", style="dim", markup=False, soft_wrap=True)
        return
    if "event" not in line:  # metrics
        return
    words = str(line.get("message", ""))
    # Most messages contain the revision and its description.
    what = (str(line[name]) for name in ("revision", "description") if line.get(name))
    text = " ".join(part for part in (at, line["event"], *(each for each in what if each not in words), words) if part)
    output.results.print(plain(text), style=_COLOURS.get(str(line.get("level"))), markup=False, soft_wrap=True)
    for name in _DETAILS:
        if line.get(name) is not None:
            output.results.print(f"             {name}: {plain(line[name])}", style="dim", markup=False, soft_wrap=True)


def _parsed(message: str) -> dict[str, Any] | None:
    try:
        line = json.loads(message)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
