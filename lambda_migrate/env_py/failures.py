"""Turns an exception that env.py or a revision raised into a `Failure`."""

from __future__ import annotations

import json
import os
import traceback
from dataclasses import replace
from pathlib import Path
from ssl import SSLError
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from lambda_migrate.database.common import is_authentication_failure
from lambda_migrate.env_py import hints
from lambda_migrate.env_py.advice import advice
from lambda_migrate.env_py.connection import OTHER_POOLER
from lambda_migrate.env_py.driver_errors import is_drivers, server_error, text_without_values
from lambda_migrate.env_py.messages import Failure, Kind
from lambda_migrate.invocation.errors import MigrationError, PoolerRefused
from lambda_migrate.invocation.redaction import one_line

if TYPE_CHECKING:
    from lambda_migrate.env_py.journal import Journal
    from lambda_migrate.invocation.result import Revision

# PostgreSQL's error codes (its manual, appendix A).
_LOCK_STATES = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected
_CANCELLED = "57014"  # query_canceled
# too_many_connections, admin_shutdown, crash_shutdown, cannot_connect_now, idle_session_timeout,
# idle_in_transaction_session_timeout, transaction_timeout
_CONNECTION_STATES = frozenset({"53300", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04"})


# PgBouncer's words for a startup parameter such as the search_path or the read-only mode that PGOPTIONS sets.
_REFUSED_OPTIONS = "unsupported startup parameter"


def failure_of(error: BaseException, journal: Journal, *, backend: Path, password: str = "") -> Failure:
    """Return the failure for an exception, in a form that can be sent, logged and raised.

    ``journal`` has the revision that was running and what is known of it, ``backend`` is the backend's folder, and
    ``password`` that of the login.
    """
    try:
        str(error)
    except Exception:  # noqa: BLE001 - the backend's own code
        mute = RuntimeError(f"{type(error).__name__}, whose text cannot be read")
        error = mute.with_traceback(error.__traceback__)
    revision = journal.revision
    failure = _failure(error, revision, began=journal.began, partly_committed=journal.partly_committed)
    if isinstance(error, FileNotFoundError):
        failure = replace(failure, message=f"{failure.message}{_unpackaged(error, backend)}")
    if failure.kind == "authentication" and hints.logs_in_with_hidden_password(error):
        failure = replace(failure, kind="error", message=f"{failure.message} ({hints.IS_HIDDEN})")
    elif not journal.began and hints.puts_password_into_url(error, password):
        failure = replace(failure, kind="error", message=f"{failure.message} ({hints.IS_UNESCAPED})")
    elif failure.sqlstate is not None and revision is not None:
        remarks = (one_line(journal.note, limit=1000), hints.of_one_transaction_each(failure, journal.temporary))
        failure = replace(failure, message=failure.message + "".join(f" ({each})" for each in remarks if each))
    if journal.went_on:
        failure = replace(failure, message=f"{failure.message} (env.py caught this error and continued)")
    file, line = _place_in_backend(error, backend)
    remark = hints.of_interrupted_run(failure, backend / file) if file is not None and revision is not None else ""
    if remark := remark or hints.of_unversioned_database(failure):
        failure = replace(failure, message=f"{failure.message} ({remark})")
    return replace(failure, file=file, line=line)


def _failure(error: BaseException, revision: Revision | None, *, began: bool, partly_committed: bool) -> Failure:
    if isinstance(error, MigrationError):
        return Failure("refused", type(error).__name__, one_line(error), revision, facts=error.facts)
    if not began and _REFUSED_OPTIONS in str(error):
        return Failure("refused", PoolerRefused.__name__, OTHER_POOLER, revision)
    # A revision that bypasses SQLAlchemy raises the driver's own errors.
    if isinstance(error, DBAPIError) or is_drivers(error):
        return _database_failure(error, revision, partly_committed=partly_committed)
    kind: Kind = "error"
    if not began and is_authentication_failure(str(error)):
        kind = "authentication"
    elif not began and isinstance(error, OSError) and not isinstance(error, SSLError) and error.filename is None:
        # asyncpg raises OSError if the connection is refused. With a name, it is about a file.
        kind = "connection"
    message = f"{one_line(text_without_values(error)) or _place(error)}{advice(error, began=began)}"
    return Failure(kind, type(error).__name__, message, revision, partly_committed=partly_committed)


def _unpackaged(error: FileNotFoundError, backend: Path) -> str:
    """Return what to do about a missing file of the backend: the package has only what Alembic imports."""
    frames = traceback.extract_tb(error.__traceback__)
    is_program = bool(frames) and Path(frames[-1].filename).name == "subprocess.py"
    if not isinstance(error.filename, str) or not error.filename or is_program:
        return ""
    path = Path(os.path.normpath(Path.cwd() / error.filename))
    if not path.is_relative_to(backend):
        return ""
    inside = path.relative_to(backend)
    pattern = inside.as_posix() if inside.parent == Path() else f"{inside.parent.as_posix()}/**"
    return f' (if the backend has this file, package it; in the stage: "package_files": {json.dumps([pattern])})'


def _place_in_backend(error: BaseException, backend: Path) -> tuple[str | None, int | None]:
    """Return the innermost place in the backend's own code that raised: the file and the line."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        places.append((error.filename, error.lineno))
    for name, line in reversed(places):
        if Path(name).is_relative_to(backend):
            return str(Path(name).relative_to(backend)), line
    return None, None


def _place(error: BaseException) -> str:
    """Return the line that raised, for an error without a message, which usually is an assertion."""
    frames = traceback.extract_tb(error.__traceback__)
    return one_line(f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: {frames[-1].line}") if frames else ""


def _database_failure(error: BaseException, revision: Revision | None, *, partly_committed: bool) -> Failure:
    cause = _root(error)
    server = server_error(cause)
    message = server.message or str(cause)
    statement = getattr(error, "statement", None)
    return Failure(
        _kind(error, server.sqlstate, message),
        type(cause).__name__,
        one_line(message),
        revision,
        sqlstate=server.sqlstate,
        statement=one_line(statement) if statement else None,
        table=server.table,
        constraint=server.constraint,
        detail=one_line(server.detail) if server.detail else None,
        hint=one_line(server.hint) if server.hint else None,
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
