"""Runs the function's handler as a process, without Lambda and its 15 minutes: ``python -m lambda_migrate [EVENT]``.

The event is the argument, or the variable ``LONG_RUN_EVENT``. Standard output gets the function's log lines and
metrics, and as its last line the result, or Lambda's form of an error: ``errorType`` and ``errorMessage``. The exit
code is that of `migrate`. A CodeBuild project of the stage runs it, see `infra.long_runs`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lambda_migrate.handler import handler
from lambda_migrate.invocation.errors import ConfigurationError, MigrationError, exit_code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aws_lambda_powertools.utilities.typing import LambdaContext

# A longer outcome has its longest lists cut, and lists their names. The outcome becomes a variable of the build, which
# CodePipeline limits to 64 KB.
LONGEST_OUTCOME = 4000
_DEFAULT_TIMEOUT_S = "28800"
_ENDED_BY_SIGNAL = 128


@dataclass(frozen=True)
class Context:
    """The handler's context of an invocation, like Lambda's. ``ends`` is in monotonic seconds."""

    function_name: str
    aws_request_id: str
    ends: float
    memory_limit_in_mb: str
    invoked_function_arn: str = ""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Context:
        """Return the context that the variables describe.

        Raises:
            ConfigurationError: ``LONG_RUN_TIMEOUT_S`` is no number of seconds.
        """
        timeout = variables.get("LONG_RUN_TIMEOUT_S", _DEFAULT_TIMEOUT_S)
        if not timeout.isdecimal() or not int(timeout):
            raise ConfigurationError(f"LONG_RUN_TIMEOUT_S must be a number of seconds above 0, not {timeout!a}")
        # CodeBuild's id is "<project>:<uuid>".
        build = variables.get("CODEBUILD_BUILD_ID", "").rpartition(":")[2]
        return cls(
            function_name=variables.get("LONG_RUN_FUNCTION", "long-run"),
            aws_request_id=build or str(uuid.uuid4()),
            ends=time.monotonic() + int(timeout),
            memory_limit_in_mb=str((os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) >> 20),
            invoked_function_arn=variables.get("CODEBUILD_BUILD_ARN", ""),
        )

    def get_remaining_time_in_millis(self) -> int:
        """Return the time that the run has left."""
        return max(0, round((self.ends - time.monotonic()) * 1000))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the action of the event and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lambda_migrate", description="Run the function as a process.")
    parser.add_argument("event", nargs="?", help="the event as JSON; without it, LONG_RUN_EVENT, or an upgrade to head")
    parser.add_argument(
        "--outcome", type=Path, help=f"a file for the last line, of {LONGEST_OUTCOME} characters at most"
    )
    given = parser.parse_args(arguments)
    # A container's first process ignores the signal unless it has a handler.
    signal.signal(signal.SIGTERM, _end)
    answer, code = _run(given.event if given.event is not None else os.environ.get("LONG_RUN_EVENT", "{}"))
    if given.outcome:
        given.outcome.write_text(_short(answer), encoding="utf-8")
    sys.stdout.write(json.dumps(answer, separators=(",", ":")) + "\n")
    sys.stdout.flush()
    return code


def _run(text: str) -> tuple[dict[str, Any], int]:
    try:
        # The handler and its logger read only these fields of Lambda's context.
        context = cast("LambdaContext", Context.from_environment(os.environ))
        return handler(_event(text), context), 0
    except MigrationError as error:
        return {"errorType": type(error).__name__, "errorMessage": str(error)}, exit_code(type(error))


def _event(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        # The handler refuses a text as an event, and logs that.
        return text


def _short(answer: Mapping[str, Any]) -> str:
    text = json.dumps(answer, separators=(",", ":"))
    if len(text) <= LONGEST_OUTCOME:
        return text
    if "errorType" in answer:
        message = str(answer["errorMessage"])
        # JSON writes a character as up to 12.
        while len(text) > LONGEST_OUTCOME:
            message = message[: len(message) * 9 // 10]
            text = json.dumps({**answer, "errorMessage": message}, separators=(",", ":"))
        return text
    # The longest first. Short and empty lists stay, so that their reader need not guess.
    lists = {name: len(json.dumps(value)) for name, value in answer.items() if isinstance(value, (list, dict))}
    kept, cut = dict(answer), list[str]()
    for name in sorted(lists, key=lists.__getitem__, reverse=True):
        del kept[name]
        cut.append(name)
        text = json.dumps({**kept, "truncated": sorted(cut)}, separators=(",", ":"))
        if len(text) <= LONGEST_OUTCOME:
            break
    return text


def _end(number: int, _: object) -> None:
    """End at once, as Lambda ends a function: the process of env.py dies with this one."""
    os._exit(_ENDED_BY_SIGNAL + number)


if __name__ == "__main__":
    sys.exit(main())
