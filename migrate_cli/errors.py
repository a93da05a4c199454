"""What ends a command early, with which exit code, and what to type next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from lambda_migrate.invocation import errors as contract_errors

if TYPE_CHECKING:
    from collections.abc import Mapping


class ExitCode(IntEnum):
    """What a pipeline may rely on; docs/cli.md has the list."""

    OK = 0
    FAILED = 1
    USAGE = 2
    AWS = 3
    AGAIN = 4
    INTERRUPTED = 130


class CommandError(Exception):
    """A command that did not succeed. ``kind`` is the error's name, for programs; ``advice`` is for people."""

    def __init__(
        self, kind: str, message: str, exit_code: ExitCode, *, advice: str = "", request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.exit_code = exit_code
        self.advice = advice
        self.request_id = request_id

    def as_json(self) -> dict[str, object]:
        """Give the document that ``--json`` prints."""
        return {"error": {"type": self.kind, "message": self.message, "request_id": self.request_id}}


class UsageError(CommandError):
    """The command itself is wrong. Nothing was invoked."""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__("UsageError", message, ExitCode.USAGE, advice=advice)


class FaultError(CommandError):
    """Something that this command did not reckon with, as a message of one line: a bug, or a disk that is full."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            "InternalError",
            f"migrate itself failed, not the migration: {type(error).__name__}: {' '.join(str(error).split())}",
            ExitCode.AWS,
            advice="A run that was begun goes on: look with `migrate status`. To report this, add what MIGRATE_DEBUG=1"
            " before the same command prints.",
        )


@dataclass(frozen=True)
class Commands:
    """The commands that a person may type next, for the same stage and in the same way as this one.

    ``command`` is this one, as it was typed. ``options`` lead to the stage, and ``settings`` are variables
    that the aws command needs beside its own options.
    """

    program: tuple[str, ...]
    command: tuple[str, ...]
    options: tuple[str, ...]
    log_group: str
    aws_options: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    def named(self, name: str) -> str:
        """Another command for the same stage."""
        return shlex.join((*self.program, *name.split(), *self.options))

    def again(self) -> str:
        """The same command once more."""
        return shlex.join((*self.program, *self.command))

    def log(self, request_id: str | None) -> str:
        """The aws command that shows the log, of one request where it is known. Versions 1 and 2 both have it."""
        pattern = ("--filter-pattern", f'"{request_id}"') if request_id else ()
        show = ("aws", "logs", "filter-log-events", "--log-group-name", self.log_group, *pattern, *self.aws_options)
        return " ".join([*self.settings, shlex.join((*show, "--query", "events[].message", "--output", "text"))])


# More often than not it is a permission or a name.
_AWS_TROUBLE = frozenset({contract_errors.SecretUnavailable.__name__, contract_errors.BucketUnavailable.__name__})

_ADVICE: Mapping[str, str] = {
    # The request was checked here already: the revision is unknown there, or the action is.
    "InvalidRequest": "The revisions that are deployed: {history}. If the function is older than this command, deploy.",
    "ConfigurationError": "Correct what the message names and deploy; several heads: merge them, or ask for heads.",
    "SecretUnavailable": "Which step fails: {doctor}",
    "BucketUnavailable": "A permission, or in a VPC the way to S3. Then: {again}. The log: {log}",
    "SecretMalformed": "Correct the secret, then see whether it is enough: {doctor}",
    "DatabaseUnavailable": "Which step fails: {doctor}. Once the server is back: {again}",
    "AuthenticationFailed": "Make secret and role agree, then: {doctor}",
    "PoolerRefused": "Let DB_HOST and DB_PORT lead to the server itself, or to a pool in session mode.",
    "TargetMismatch": "Let env.py take its address from the function: docs/contract.md, How env.py gets its address.",
    "UnknownRevision": "Deploy the backend that has this revision. What this one has: {history}",
    "MigrationLocked": "Who holds the lock: {status}. When that run is done: {again}",
    "LockTimeout": "When the sessions named above are gone, or ended: {again}",
    "MigrationFailed": "Correct the revision or the data, deploy, then: {again}. The log: {log}",
    "MigrationIncomplete": "It goes on from there: {again}",
    "DowngradeRefused": "The current revision, for --confirm: {status}",
    "DriftDetected": "What is pending: {status}. Then write the revision that is missing.",
    "MigrationError": "This is a fault of the function. Report it with its log: {log}",
}
_NO_ANSWER = "Where the database is now: {status}. What happened: {log}"


def of_function(kind: str, message: str, request_id: str | None, commands: Commands) -> CommandError:
    """The error that the function, or Lambda in its place, answered with."""
    advice = _ADVICE.get(kind, _NO_ANSWER).format(
        again=commands.again(),
        log=commands.log(request_id),
        **{name: commands.named(name) for name in ("doctor", "history", "status")},
    )
    return CommandError(kind, message, _exit_code(kind), advice=advice, request_id=request_id)


def _exit_code(kind: str) -> ExitCode:
    """By the contract's word on whether the same invocation may succeed later."""
    known = getattr(contract_errors, kind, None)
    if kind == contract_errors.InvalidRequest.__name__:
        return ExitCode.USAGE
    # Lambda's own names, such as Sandbox.Timedout: the function did not come to answer.
    if kind in _AWS_TROUBLE or not (isinstance(known, type) and issubclass(known, contract_errors.MigrationError)):
        return ExitCode.AWS
    return ExitCode.AGAIN if known.retry_helps else ExitCode.FAILED
