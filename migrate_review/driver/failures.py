"""The driver's errors, and the text for an exception of the backend: its reason, its place, the advice."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

from lambda_migrate.env_py.advice import advice
from migrate_review.driver.interpreters import packages_advice


class RefusedError(Exception):
    """The review cannot continue. The message is for the person who started it."""


class EnvPyFailedError(RefusedError):
    """env.py failed before any revision began. It may work in another process if the state of this one is the cause."""


def import_advice(error: BaseException, folder: Path) -> str:
    """Return the advice for a module that cannot be imported, or an empty text for other errors."""
    if not isinstance(error, ImportError):
        return ""
    name = (error.name or "").partition(".")[0]
    if name and ((folder / name).is_dir() or (folder / f"{name}.py").is_file()):
        return f" ({name} is in the backend's folder: set prepend_sys_path = . in the [alembic] section)"
    return f" ({packages_advice(Path(sys.executable))})"


def failure(error: BaseException) -> dict[str, Any]:
    """Return the reason of a failure in one line, and PostgreSQL's code for it."""
    cause: Any = getattr(error, "orig", None) or error
    # SQLAlchemy's asyncpg adapter wraps the driver's own error twice.
    if cause is not error and cause.__cause__ is not None and not hasattr(cause, "diag"):
        cause = cause.__cause__
    message = getattr(getattr(cause, "diag", None), "message_primary", None) or str(cause)
    sqlstate = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    text = " ".join(f"{type(cause).__name__}: {message}".split()).rstrip(": ")
    return {"text": f"{text} (SQLSTATE {sqlstate})" if sqlstate else text, "sqlstate": sqlstate}


def _place(error: BaseException, folder: Path) -> str:
    """Return the backend's own file and line that raised an error, or "" if none did."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(Path(error.filename), folder)}:{error.lineno}: "
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(folder) and "site-packages" not in frame.filename
    ]
    return f"{_relative(Path(own[-1].filename), folder)}:{own[-1].lineno}: " if own else ""


def _relative(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def described(error: BaseException, folder: Path) -> str:
    """Return why something failed, with the backend's file and line, in one line."""
    if isinstance(error, RefusedError):
        return str(error)
    return f"{_place(error, folder)}{failure(error)['text']}"


def env_py_failure(error: BaseException, folder: Path) -> str:
    """Return why env.py failed before any revision began, and what to do."""
    hint = advice(error, began=False) or import_advice(error, folder)
    return f"env.py failed before any revision ran: {described(error, folder)}{hint}"
