"""Turns a failure of env.py's process into an error of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lambda_migrate.env_py.messages import NEVER_COMMITTED, READ_ONLY
from lambda_migrate.invocation.errors import (
    AuthenticationFailed,
    ConfigurationError,
    DatabaseUnavailable,
    DowngradeRefused,
    DriftDetected,
    InvalidRequest,
    LockTimeout,
    MigrationError,
    MigrationFailed,
    PoolerRefused,
    TargetMismatch,
    UnknownRevision,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_migrate.database.migration_lock import Holder
    from lambda_migrate.env_py.messages import Failure

_REFUSALS: Mapping[str, type[MigrationError]] = {
    error.__name__: error
    for error in (
        ConfigurationError,
        DowngradeRefused,
        DriftDetected,
        InvalidRequest,
        PoolerRefused,
        TargetMismatch,
        UnknownRevision,
    )
}
_IN_TRANSACTION = "25001"  # active_sql_transaction
_PARTLY_COMMITTED = "; it had committed part of its work, so the function does not retry it"


class TryAgain(Exception):  # noqa: N818 - not an error: the run begins again
    """An attempt ended for a reason that may pass. ``error`` is the error to raise if there is no further attempt."""

    def __init__(self, error: MigrationError) -> None:
        super().__init__(str(error))
        self.error = error


# Long, but flat: one case after the other, most certain first.
def error_of(
    failure: Failure, *, where: str, any_ran: bool, several: bool, holders: tuple[Holder, ...], changes: bool
) -> MigrationError | TryAgain:
    """Return the error for a failure.

    ``where`` is the database's current revision in words. ``any_ran`` is True if a revision ran to its end in this
    attempt, ``several`` if env.py has several version tables. ``holders`` are the sessions that blocked the failed
    revision.
    """
    facts = _facts(failure, holders)
    if failure.kind == "refused":
        message = f"{failure.message}; {where}" if any_ran or several else failure.message
        return _REFUSALS.get(failure.error_type, ConfigurationError)(message, **facts)
    if failure.sqlstate == READ_ONLY and changes:
        part = _PARTLY_COMMITTED if failure.partly_committed else ""
        what = f"revision {failure.revision.revision}" if failure.revision else "env.py"
        return ConfigurationError(
            f"the database is read-only: {what}: {failure.message}{part}: migrations need the writer; correct the"
            f" secret's host, or let env.py turn default_transaction_read_only off; {where}",
            **facts,
        )
    if failure.revision is None and not any_ran and failure.kind != "lock":
        return (None if changes else _of_a_look(failure, facts)) or _before_any_revision(failure, facts)
    what = _what(failure)
    cause = f"{failure.error_type}: {failure.message}"
    part = _PARTLY_COMMITTED if failure.partly_committed else ""
    if failure.kind == "lock":
        blocked = f"blocked by {'; '.join(map(str, holders))}" if holders else "the blocking session had already ended"
        return LockTimeout(f"{what} could not get its table locks: {cause}; {blocked}{part}; {where}", **facts)
    if failure.kind == "connection" and not failure.partly_committed:
        return TryAgain(DatabaseUnavailable(f"the connection was lost during {what}: {cause}; {where}", **facts))
    state = f" (SQLSTATE {failure.sqlstate})" if failure.sqlstate else ""
    return MigrationFailed(f"{what} failed: {cause}{state}{part}; {where}", **facts)


def _what(failure: Failure) -> str:
    if failure.revision is None:
        return "env.py"
    table = f" for {failure.revision.table}" if failure.revision.table else ""
    return f"revision {failure.revision.revision} ({failure.revision.description}){table}"


def _of_a_look(failure: Failure, facts: Mapping[str, Any]) -> MigrationError | None:
    """Return the error for what PostgreSQL refused because the action only looks, or None for another failure."""
    refused = {
        READ_ONLY: "env.py writes on a connection of an async driver that it opens without SQLAlchemy",
        _IN_TRANSACTION: "env.py runs a statement that no transaction can roll back",
    }
    what = refused.get(failure.sqlstate or "")
    if failure.constraint == NEVER_COMMITTED:
        what = "env.py commits what it writes past SQLAlchemy and its driver"
    if what is None:
        return None
    return ConfigurationError(
        f"{what}, and this action must change nothing: PostgreSQL refused that ({failure.message}), and nothing was"
        " changed; let"
        " env.py do it only if it is needed, and with SQLAlchemy",
        **facts,
    )


def _facts(failure: Failure, holders: tuple[Holder, ...]) -> dict[str, Any]:
    """Return the fields of the error's log line; those of an error that env.py's process raised itself come first."""
    return {
        "revision": failure.revision.revision if failure.revision else None,
        "sqlstate": failure.sqlstate,
        "statement": failure.statement,
        "table": failure.table,
        "constraint": failure.constraint,
        "detail": failure.detail,
        "hint": failure.hint,
        "file": failure.file,
        "line": failure.line,
        "blocking_pids": [holder.pid for holder in holders] or None,
        "partly_committed": failure.partly_committed or None,
        **failure.facts,
    }


def _before_any_revision(failure: Failure, facts: Mapping[str, Any]) -> MigrationError | TryAgain:
    cause = f"{failure.error_type}: {failure.message}"
    if failure.kind == "authentication":
        return TryAgain(AuthenticationFailed(f"env.py's connection was refused: {cause}", **facts))
    if failure.kind == "connection":
        return TryAgain(
            DatabaseUnavailable(
                f"env.py could not use its connection: {cause} (does it take its address from DATABASE_URL?"
                " See DATABASE_URL_ENV and DATABASE_ENV)",
                **facts,
            )
        )
    return ConfigurationError(f"env.py failed before any revision ran: {cause}", **facts)
