"""Hints for errors that come from one transaction for each revision, and for a hidden or unescaped password."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from lambda_migrate.invocation.errors import ADOPT_FIRST

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path
    from types import TracebackType

    from lambda_migrate.env_py.messages import Failure

IS_HIDDEN = (
    "env.py logs in with the password ***, because str() of a SQLAlchemy URL hides the password: use"
    " url.render_as_string(hide_password=False), or the URL itself"
)
IS_UNESCAPED = (
    "env.py puts the password into a URL without escaping it, and this password has characters that a URL must escape:"
    " let DATABASE_ENV give env.py {password_quoted} and {user_quoted} in place of {password} and {user}, or let env.py"
    " use sqlalchemy.URL.create()"
)
_HIDDEN = "***"

_EACH = "the function commits each revision on its own, even if plain Alembic would run all in one transaction"
# PostgreSQL's error codes (its manual, appendix A).
_OF_EACH = {
    "55P04": f"a new enum value can be used only after the transaction that added it was committed, and {_EACH}: add"
    " the value in a revision of its own before this one, or in an autocommit_block",
    "34000": f"a cursor ends with its transaction, and {_EACH}: declare it WITH HOLD, or in this revision",
    "3B001": f"a savepoint ends with its transaction, and {_EACH}",
}
_UNDEFINED_TABLE = "42P01"
# duplicate_column, duplicate_table, duplicate_object, duplicate_schema, duplicate_function, undefined_column,
# undefined_table, undefined_object, undefined_function
_IS_DONE = frozenset({"42701", "42P07", "42710", "42P06", "42723", "42703", "42P01", "42704", "42883"})
# duplicate_table, duplicate_object (such as a type), duplicate_schema
_EXISTS = frozenset({"42P07", "42710", "42P06"})
_BLOCK = "autocommit_block"
_INTEGRITY_CONSTRAINT_VIOLATION = "23"


def of_one_transaction_each(failure: Failure, temporary: Collection[str]) -> str:
    """Return a hint for an error that may come from the end of a transaction after each revision, or an empty text.

    ``temporary`` are the tables that ended with the revision that created them.
    """
    state = failure.sqlstate or ""
    if state.startswith(_INTEGRITY_CONSTRAINT_VIOLATION) and failure.statement is None:
        return f"a deferred constraint is checked at the end of a transaction, and {_EACH}"
    if state == _UNDEFINED_TABLE and any(f'"{name}"' in failure.message for name in temporary):
        return f"a temporary table with ON COMMIT DROP ends with its transaction, and {_EACH}"
    return _OF_EACH.get(state, "")


def of_interrupted_run(failure: Failure, source: Path) -> str:
    """Return a hint for an error that a run which was killed may have left, or an empty text.

    What a revision does before an autocommit block is committed without its version. ``source`` is its file.
    """
    if failure.sqlstate not in _IS_DONE:
        return ""
    try:
        has_block = _BLOCK in source.read_text(encoding="utf-8", errors="replace")
    except OSError:  # a tree without sources
        return ""
    if not has_block:
        return ""
    return (
        "the revision commits what it does before its autocommit_block(): if an interrupted run has left this, undo it"
        " by hand and invoke again; give what runs outside a transaction a revision of its own"
    )


def of_unversioned_database(failure: Failure) -> str:
    """Return a hint for a first revision whose objects exist already, or an empty text."""
    is_first = failure.revision is not None and not failure.revision.down_revisions
    return ADOPT_FIRST if is_first and failure.sqlstate in _EXISTS else ""


def logs_in_with_hidden_password(error: BaseException) -> bool:
    """Return whether the login that failed used the password ``***``, as the frames of the error show."""
    return any(_is_hidden(name, value) for name, value in _locals(error))


def puts_password_into_url(error: BaseException, password: str) -> bool:
    """Return whether the frames of an error have an address with this password, which had to be escaped there.

    Those of pydantic have none. It rejects the address itself.
    """
    if not password or quote(password, safe="") == password:
        return False
    return _rejects_url(error) or any(_is_unescaped(value, password) for _, value in _locals(error))


def _rejects_url(error: BaseException) -> bool:
    """Return whether pydantic has found an address that is none."""
    if type(error).__name__ != "ValidationError":
        return False
    try:
        return any("url" in one["type"] for one in error.errors())  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - another library's error of this name
        return False


def _is_unescaped(value: object, password: str) -> bool:
    if isinstance(value, str):
        return "://" in value and f":{password}@" in value
    if not isinstance(value, dict):
        return False
    # The driver's parts of such an address: the password ends at its first "@", and the rest becomes the host.
    host, theirs = value.get("host"), value.get("password")
    cut = isinstance(theirs, str) and theirs != password and password.startswith(theirs)
    return cut and isinstance(host, str) and f"{theirs}@{host}".startswith(password)


def _is_hidden(name: str, value: object) -> bool:
    if isinstance(value, str):
        return f":{_HIDDEN}@" in value or f"password={_HIDDEN}" in value or (name == "password" and value == _HIDDEN)
    return isinstance(value, dict) and value.get("password") == _HIDDEN


def _locals(error: BaseException | None) -> Iterator[tuple[str, object]]:
    """Yield the local variables of the frames through which an error and its causes went."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frame: TracebackType | None = error.__traceback__
        while frame is not None:
            yield from frame.tb_frame.f_locals.items()
            frame = frame.tb_next
        error = error.__cause__ or error.__context__
