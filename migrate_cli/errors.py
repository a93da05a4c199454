"""The errors of a command, with their exit codes and the next step."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from lambda_migrate.invocation import errors as contract_errors
from migrate_cli.failed_run import FailedRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class ExitCode(IntEnum):
    """The exit codes. docs/cli.md lists them for pipelines."""

    OK = 0
    FAILED = 1
    USAGE = 2
    AWS = 3
    AGAIN = 4
    INTERRUPTED = 130


class CommandError(Exception):
    """A command that failed. ``kind`` is the error's name, and ``advice`` is the next step for a person.

    ``run`` is the failed run as its log shows it, if there was one.
    """

    def __init__(
        self, kind: str, message: str, exit_code: ExitCode, *, advice: str = "", request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.exit_code = exit_code
        self.advice = advice
        self.request_id = request_id
        self.run = FailedRun()

    @property
    def runbook(self) -> str | None:
        """Return the address of the error's paragraph in docs/errors.md, for an error of the contract."""
        known = getattr(contract_errors, self.kind, None)
        is_ours = isinstance(known, type) and issubclass(known, contract_errors.MigrationError)
        return f"docs/errors.md#{self.kind.lower()}" if is_ours else None

    def as_json(self) -> dict[str, object]:
        """Return the document that ``--json`` prints."""
        error = {"type": self.kind, "message": self.message, "request_id": self.request_id}
        return {"error": {**error, **self.run.as_json()}}


class NoAnswer(CommandError):  # noqa: N818 - the run may have succeeded
    """The connection was lost, or stayed silent, after the request was sent. The function may still run."""


class NotInvoked(CommandError):  # noqa: N818 - Lambda did not run the function, and may run it in a moment
    """Lambda refused the invocation for a temporary reason. Nothing was run."""


class LambdaFailed(NotInvoked):
    """Lambda itself failed. Probably nothing was run; a repeated request changes nothing if it was."""


class UsageError(CommandError):
    """The command itself is wrong. Nothing was invoked."""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__("UsageError", message, ExitCode.USAGE, advice=advice)


class FaultError(CommandError):
    """A bug of this command, or a problem such as a full disk, as a message of one line."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            "InternalError",
            f"migrate itself failed, not the migration: {type(error).__name__}: {' '.join(str(error).split())}",
            ExitCode.AWS,
            advice="A started run continues: check it with `migrate status`. To report this error, add the output of"
            " the same command with MIGRATE_DEBUG=1.",
        )


# The commands that have the options of a target.
_AT_TARGET = frozenset({"upgrade", "plan", "status", "check", "doctor", "downgrade", "stamp"})


@dataclass(frozen=True)
class Commands:
    """The commands to suggest as the next step, with the options of the current one.

    ``command`` is the current command as it was typed. ``options`` select the stage, and ``target`` a tenant's
    database.
    """

    program: tuple[str, ...]
    command: tuple[str, ...]
    options: tuple[str, ...]
    target: tuple[str, ...] = ()

    def named(self, name: str) -> str:
        """Return another command for the same stage, and the same database if the command has one."""
        words = name.split()
        target = self.target if words[0] in _AT_TARGET else ()
        return shlex.join((*self.program, *words, *self.options, *target))

    def again(self) -> str:
        """Return the current command."""
        return shlex.join((*self.program, *self.command))

    def log(self, request_id: str | None) -> str:
        """Return the command that shows the log of this request, or of the last run if its id is unknown."""
        return self.named(f"logs {request_id}" if request_id else "logs")


def steps(*each: tuple[str, str]) -> str:
    """Return the next steps as text, with each command on a line of its own."""
    return "\n".join(f"{words}:\n  {command}" for words, command in each)


# The next steps for each error, and their commands.
_ADVICE: Mapping[str, Sequence[tuple[str, str]]] = {
    # The event was valid here, so the function does not have the revision or the action.
    "InvalidRequest": [("See which revisions are deployed", "history")],
    "ConfigurationError": [("Correct what the message names and deploy. Then", "doctor")],
    "SecretUnavailable": [("See which step fails", "doctor")],
    "BucketUnavailable": [("Grant the permission or, in a VPC, give the function a way to S3. Then", "again")],
    "SecretMalformed": [("Correct the secret. Then", "doctor")],
    "DatabaseUnavailable": [("See which step fails", "doctor"), ("After the server is back", "again")],
    "AuthenticationFailed": [("Correct the login in the secret or at the server. Then", "doctor")],
    "PoolerRefused": [("Let the stage's database.host and database.port lead to the server. Then", "doctor")],
    "TargetMismatch": [("Let env.py get its address from the function (docs/contract.md). Then", "again")],
    "PreflightFailed": [("Fix the rows, or acknowledge the finding. See the whole preflight", "plan")],
    "UnknownRevision": [("Deploy the backend that has this revision. See the deployed revisions", "history")],
    "MigrationLocked": [("See the holder of the lock", "status")],
    "LockTimeout": [("After the sessions named above have ended", "again")],
    "MigrationFailed": [("Fix the revision or the data and deploy. Then", "again")],
    "MigrationIncomplete": [("To continue from there", "again")],
    "DowngradeRefused": [("See the current revision, for --confirm", "status")],
    "DriftDetected": [("Correct the differences with a revision or in the database. Then", "again")],
    "MigrationError": [("This is a bug of the function. Report it with its log", "log")],
}
# The next steps for causes that an error has besides its usual one.
_ADVICE_BY_CAUSE: Mapping[str, Sequence[tuple[str, str]]] = {
    contract_errors.ALLOW_FIRST: [("After that deployment", "again")],
    contract_errors.UPGRADE_FIRST: [("Apply the pending revisions", "upgrade")],
    contract_errors.ADOPT_FIRST: [("Verify the schema of such a database and set its revision", "stamp head --verify")],
}
_NO_ANSWER = [("See the database's state", "status")]


@contextmanager
def interrupted_as(message: str, advice: str) -> Iterator[None]:
    """Turn Ctrl-C into an error. The message says what may have been done, and the advice how to check it."""
    try:
        yield
    except KeyboardInterrupt:
        raise CommandError("Interrupted", message, ExitCode.INTERRUPTED, advice=advice) from None


def of_function(kind: str, message: str, request_id: str | None, commands: Commands) -> CommandError:
    """Return the error that the function or Lambda raised."""
    others = {"again": commands.again(), "log": commands.log(request_id)}
    of_cause = next((found for words, found in _ADVICE_BY_CAUSE.items() if words in message), None)
    advised = of_cause or _ADVICE.get(kind, _NO_ANSWER)
    advice = steps(*((words, others.get(name) or commands.named(name)) for words, name in advised))
    return CommandError(kind, message, _exit_code(kind), advice=advice, request_id=request_id)


def _exit_code(kind: str) -> ExitCode:
    """Return the exit code: the contract states whether the same invocation may succeed later."""
    known = getattr(contract_errors, kind, None)
    # One of Lambda's own names, such as Sandbox.Timedout: the function did not answer.
    if not (isinstance(known, type) and issubclass(known, contract_errors.MigrationError)):
        return ExitCode.AWS
    return ExitCode(contract_errors.exit_code(known))
