"""The errors of the contract. Callers see the class name as Lambda's ``errorType``.

Pipelines, alarms and state machines name these classes, so none may be renamed: docs/contract.md#errors.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from lambda_migrate.invocation.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lambda_migrate.invocation.result import RunState


class MigrationError(Exception):
    """Base of every error that the function raises on purpose. The message is one line that a person can act on.

    A concealed secret in the message is redacted.

    ``facts`` are further fields of its log line, by their names in docs/contract.md#logs-and-metrics. ``state`` is the
    state of the run at that time, None if there was no run.
    """

    retry_helps: ClassVar[bool] = False

    def __init__(self, message: str, **facts: Any) -> None:  # noqa: ANN401 - any field of a log line
        super().__init__(redact(message))
        self.facts = facts
        self.state: RunState | None = None


class Unexpected(Exception):
    """A bug of the function. ``state`` is the work that the run had done."""

    def __init__(self, error: Exception, state: RunState) -> None:
        super().__init__(f"{type(error).__name__}: {redact(str(error))}")
        self.error = error
        self.state = state


class InvalidRequest(MigrationError):
    """The event is malformed, or names something that does not exist. Nothing was changed."""


class ConfigurationError(MigrationError):
    """An environment variable or the package is wrong, or the package has several heads and ``head`` means one."""


class SecretUnavailable(MigrationError):
    """The secret is missing, denied, or Secrets Manager could not be reached."""

    retry_helps = True


class SecretMalformed(MigrationError):
    """The secret was read but holds no usable credentials. The message names the key, never a value."""


class DatabaseUnavailable(MigrationError):
    """No connection within the budget (refused, name not found, TLS, starting up), or the connection was lost."""

    retry_helps = True


class AuthenticationFailed(MigrationError):
    """The server refused the credentials, also after the secret was read again."""


class TargetMismatch(MigrationError):
    """env.py connected to another database than the secret names. No revision was run."""


class PoolerRefused(MigrationError):
    """The connection goes through a pooler in transaction or statement mode. Nothing was set or run."""


class PreflightFailed(MigrationError):
    """The database's rows would make a pending revision fail, or it would block for too long. Nothing was run."""


class UnknownRevision(MigrationError):
    """The database is at a revision that this package does not have: older code over a newer database."""


class MigrationLocked(MigrationError):
    """Another run held the migration lock, or others kept the server busy, for longer than this run could wait."""

    retry_helps = True


class LockTimeout(MigrationError):
    """A revision could not get its table locks in any attempt."""

    retry_helps = True


class MigrationFailed(MigrationError):
    """A revision raised. The database is at the last good revision."""


class MigrationIncomplete(MigrationError):
    """The run stopped before Lambda's deadline. The next invocation continues from there."""

    retry_helps = True


class DowngradeRefused(MigrationError):
    """Downgrades are not allowed here, or ``confirm`` is not the database's current revision."""


def exit_code(error: type[MigrationError]) -> int:
    """Return the exit code of a command that ends with this error: those of docs/cli.md."""
    if error is InvalidRequest:
        return 2
    # More often than not these are a permission or a name.
    if error in {SecretUnavailable, BucketUnavailable}:
        return 3
    return 4 if error.retry_helps else 1


# The command recognises these causes by their words, because one error can have several cures.
UPGRADE_FIRST = "models can only be compared at head; upgrade first"
ADOPT_FIRST = (
    "if these objects were made without Alembic, or the version table was lost, adopt the database: `migrate stamp"
    " REVISION --verify` (docs/adopting.md)"
)
ALLOW_FIRST = "if it is meant, set `allow_downgrade` in cdk.json (ALLOW_DOWNGRADE=true) and deploy"


def not_confirmed(confirm: str | None, current: str | None) -> str:
    """Return the message of a `DowngradeRefused` whose ``confirm`` is not the current revision."""
    given = f", not {confirm!r}" if confirm is not None else "; the request has no confirm"
    return (
        f"confirm must be the database's current revision, {current or 'null (it has none)'}, to show that you know"
        f" where it is{given}"
    )


class DriftDetected(MigrationError):
    """The models and the database differ."""


class BucketUnavailable(MigrationError):
    """The rollouts' bucket could not be read or written."""


@contextmanager
def keeping(state: RunState) -> Iterator[None]:
    """Let an error of the contract carry this state, if it has none: the work is done even if a later step fails."""
    try:
        yield
    except MigrationError as error:
        error.state = error.state or state
        raise
