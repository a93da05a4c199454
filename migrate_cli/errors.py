"""What ends a command early, with which exit code, and what to type next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from lambda_migrate.invocation import errors as contract_errors
from migrate_cli.failed_run import FailedRun

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
    """A command that did not succeed. ``kind`` is the error's name, for programs; ``advice`` is for people.

    ``run`` is what the log has of the run that failed, as far as there was one.
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
        """The paragraph about an error of the contract."""
        known = getattr(contract_errors, self.kind, None)
        is_ours = isinstance(known, type) and issubclass(known, contract_errors.MigrationError)
        return f"docs/errors.md#{self.kind.lower()}" if is_ours else None

    def as_json(self) -> dict[str, object]:
        """Return the document that ``--json`` prints."""
        error = {"type": self.kind, "message": self.message, "request_id": self.request_id}
        return {"error": {**error, **self.run.as_json()}}


class NoAnswer(CommandError):  # noqa: N818 - it may have succeeded
    """The connection was lost, or stayed silent, after the request was sent. The function may be running."""


class NotInvoked(CommandError):  # noqa: N818 - Lambda did not run the function, and may do so in a moment
    """Lambda refused the invocation for a reason that passes. Nothing was run."""


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


# The commands that take a target's options.
_AT_TARGET = frozenset({"upgrade", "plan", "status", "check", "doctor", "downgrade", "stamp"})


@dataclass(frozen=True)
class Commands:
    """The commands that a person may type next, for the same stage and in the same way as this one.

    ``command`` is this one, as it was typed. ``options`` lead to the stage, and ``target`` to a tenant's database.
    """

    program: tuple[str, ...]
    command: tuple[str, ...]
    options: tuple[str, ...]
    target: tuple[str, ...] = ()

    def named(self, name: str) -> str:
        """Return another command for the same stage, and for the same database if it works on one."""
        target = self.target if name in _AT_TARGET else ()
        return shlex.join((*self.program, *name.split(), *self.options, *target))

    def again(self) -> str:
        """Return the same command."""
        return shlex.join((*self.program, *self.command))

    def log(self, request_id: str | None) -> str:
        """Return the command that shows the log of a run: of this request if it is known, or of the last run."""
        return self.named(f"logs {request_id}" if request_id else "logs")


# What to do, and the command for it.
_ADVICE: Mapping[str, tuple[str, str]] = {
    # The request was checked here already: the function does not have the revision, or the action.
    "InvalidRequest": ("See which revisions are deployed", "history"),
    "ConfigurationError": ("Correct what the message names and deploy. Then", "doctor"),
    "SecretUnavailable": ("See which step fails", "doctor"),
    "BucketUnavailable": ("Grant the permission or, in a VPC, give the function a way to S3. Then", "again"),
    "SecretMalformed": ("Correct the secret. Then", "doctor"),
    "DatabaseUnavailable": ("Once the server is back (migrate doctor shows which step fails)", "again"),
    "AuthenticationFailed": ("Make secret and role agree. Then", "doctor"),
    "PoolerRefused": ("Let DB_HOST and DB_PORT lead to the server or to a pool in session mode. Then", "doctor"),
    "TargetMismatch": ("Let env.py take its address from the function (docs/contract.md). Then", "again"),
    "PreflightFailed": ("Correct the rows, or acknowledge the finding. See all of the preflight", "plan"),
    "UnknownRevision": ("Deploy the backend that has this revision. What the deployed one has", "history"),
    "MigrationLocked": ("See who holds the lock", "status"),
    "LockTimeout": ("When the sessions named above are gone, or ended", "again"),
    "MigrationFailed": ("Correct the revision or the data and deploy. Then", "again"),
    "MigrationIncomplete": ("It goes on from there", "again"),
    "DowngradeRefused": ("See the current revision, for --confirm", "status"),
    "DriftDetected": ("See what is pending", "status"),
    "MigrationError": ("This is a fault of the function. Report it with its log", "log"),
}
_NO_ANSWER = ("See where the database is now", "status")


def of_function(kind: str, message: str, request_id: str | None, commands: Commands) -> CommandError:
    """Return the error that the function, or Lambda in its place, answered with."""
    words, name = _ADVICE.get(kind, _NO_ANSWER)
    command = commands.named(name)
    if name in {"again", "log"}:
        command = commands.again() if name == "again" else commands.log(request_id)
    advice = f"{words}:\n  {command}"
    return CommandError(kind, message, _exit_code(kind), advice=advice, request_id=request_id)


def _exit_code(kind: str) -> ExitCode:
    """By the contract's word on whether the same invocation may succeed later."""
    known = getattr(contract_errors, kind, None)
    # Lambda's own names, such as Sandbox.Timedout: the function did not come to answer.
    if not (isinstance(known, type) and issubclass(known, contract_errors.MigrationError)):
        return ExitCode.AWS
    return ExitCode(contract_errors.exit_code(known))
