"""Turns an exception that env.py or a revision raised into a `Failure`."""

from __future__ import annotations

import traceback
from pathlib import Path
from ssl import SSLError
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from lambda_migrate.database.connect import is_authentication_failure
from lambda_migrate.env_py.messages import Failure, Kind
from lambda_migrate.invocation.errors import MigrationError
from lambda_migrate.invocation.redaction import one_line

if TYPE_CHECKING:
    from lambda_migrate.invocation.result import Revision

# PostgreSQL's error codes (its manual, appendix A).
_LOCK_STATES = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected
_CANCELLED = "57014"  # query_canceled
# too_many_connections, admin_shutdown, crash_shutdown, cannot_connect_now, idle_session_timeout,
# idle_in_transaction_session_timeout, transaction_timeout
_CONNECTION_STATES = frozenset({"53300", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04"})


def failure_of(error: BaseException, revision: Revision | None, *, began: bool, partly_committed: bool) -> Failure:
    """Return the failure for an exception, in a form that can be sent, logged and raised.

    ``revision`` is the one that was running, ``began`` is True if Alembic had read the version table, and
    ``partly_committed`` is True if the revision had committed some of its work.
    """
    if isinstance(error, MigrationError):
        return Failure("refused", type(error).__name__, one_line(error), revision, facts=error.facts)
    # A revision that bypasses SQLAlchemy raises the driver's own errors.
    if isinstance(error, DBAPIError) or hasattr(error, "pgcode") or hasattr(error, "sqlstate"):
        return _database_failure(error, revision, partly_committed=partly_committed)
    kind: Kind = "error"
    if not began and is_authentication_failure(str(error)):
        kind = "authentication"
    elif not began and isinstance(error, OSError) and not isinstance(error, SSLError):
        # asyncpg raises OSError if the connection is refused.
        kind = "connection"
    message = f"{one_line(error) or _place(error)}{_advice(error, began=began)}"
    return Failure(kind, type(error).__name__, message, revision, partly_committed=partly_committed)


def _place(error: BaseException) -> str:
    """Return the line that raised, for an error without a message, which usually is an assertion."""
    frames = traceback.extract_tb(error.__traceback__)
    return one_line(f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: {frames[-1].line}") if frames else ""


def _advice(error: BaseException, *, began: bool) -> str:
    """Return a hint for a third-party error whose message does not say what to do, or an empty text."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, AssertionError) and any(frame.name == "autocommit_block" for frame in frames):
        return (
            " (an autocommit_block cannot leave a transaction that env.py has begun around all revisions: leave the"
            " transaction to context.begin_transaction())"
        )
    if "requires an async driver" in str(error):
        return " (set DB_DRIVER to the driver that env.py works with, such as postgresql+asyncpg)"
    if type(error).__name__ == "UnknownServiceError":  # botocore's; the backend may have another botocore, or none
        return (
            " (the package has the data of those AWS services that the builder found in the code: name the others in"
            " `aws_services` of the stage)"
        )
    if isinstance(error, KeyError) and not began:
        return " (an environment variable? See DATABASE_URL_ENV and DATABASE_ENV)"
    return ""


def _database_failure(error: BaseException, revision: Revision | None, *, partly_committed: bool) -> Failure:
    cause = _root(error)
    diagnostics = getattr(cause, "diag", None)
    sqlstate = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    message = getattr(diagnostics, "message_primary", None) or getattr(cause, "message", None) or str(cause)
    statement = getattr(error, "statement", None)
    return Failure(
        _kind(error, sqlstate, message),
        type(cause).__name__,
        one_line(message),
        revision,
        sqlstate=sqlstate,
        statement=one_line(statement) if statement else None,
        table=getattr(diagnostics, "table_name", None) or getattr(cause, "table_name", None),
        constraint=getattr(diagnostics, "constraint_name", None) or getattr(cause, "constraint_name", None),
        partly_committed=partly_committed,
    )


def _root(error: BaseException) -> BaseException:
    """Return the driver's own error. SQLAlchemy's asyncpg adapter adds a second wrapper."""
    if not isinstance(error, DBAPIError):
        return error
    origin: BaseException = error.orig or error
    return origin.__cause__ if origin.__cause__ is not None and not hasattr(origin, "diag") else origin


def _kind(error: BaseException, sqlstate: str | None, message: str) -> Kind:
    if sqlstate in _LOCK_STATES:
        return "lock"
    if sqlstate == _CANCELLED:
        return "cancelled"
    if (sqlstate or "").startswith("28") or is_authentication_failure(message):
        return "authentication"
    lost = sqlstate is None and "connection" in message.lower()
    lost |= getattr(error, "connection_invalidated", False)
    # The function itself connected to this server with the same CA. So env.py's own settings are wrong, and a retry
    # cannot help.
    if "certificate verify failed" in message:
        return "error"
    if lost or sqlstate in _CONNECTION_STATES or (sqlstate or "").startswith("08"):
        return "connection"
    return "error"
