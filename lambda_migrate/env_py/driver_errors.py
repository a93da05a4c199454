"""Returns PostgreSQL's fields of an error, for every driver.

A driver's error here is one of psycopg2, psycopg, asyncpg or pg8000. psycopg2 and psycopg have the server's fields in
``diag``, asyncpg on the error, and pg8000 in a dictionary with the letters of the protocol (PostgreSQL's manual,
"Error and Notice Message Fields").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import NoSuchTableError

# PostgreSQL's error codes for objects that do not exist: undefined_table, undefined_column, invalid_schema_name,
# undefined_function, undefined_object.
_MISSING_OBJECT = frozenset({"42P01", "42703", "3F000", "42883", "42704"})
# Where SQL and values begin in the text of an error of SQLAlchemy, psycopg2 or psycopg.
_VALUES = re.compile(r"\n(?:\[SQL: |\[parameters: |LINE \d+: |DETAIL: |CONTEXT: )")


@dataclass(frozen=True)
class ServerError:
    """The fields of an error. All are None if the error is not the server's."""

    sqlstate: str | None = None
    message: str | None = None
    detail: str | None = None
    hint: str | None = None
    table: str | None = None
    constraint: str | None = None


def server_error(error: BaseException) -> ServerError:
    """Return the server's fields of a driver's error."""
    fields: Any = error.args[0] if error.args else None
    if isinstance(fields, dict) and "C" in fields:
        return ServerError(*(_text(fields.get(letter)) for letter in "CMDHtn"))
    diag = getattr(error, "diag", None)
    return ServerError(
        sqlstate=_text(getattr(error, "sqlstate", None)) or _text(getattr(error, "pgcode", None)),
        message=_text(getattr(diag, "message_primary", None)) or _text(getattr(error, "message", None)),
        detail=_text(getattr(diag, "message_detail", None)) or _text(getattr(error, "detail", None)),
        hint=_text(getattr(diag, "message_hint", None)) or _text(getattr(error, "hint", None)),
        table=_text(getattr(diag, "table_name", None)) or _text(getattr(error, "table_name", None)),
        constraint=_text(getattr(diag, "constraint_name", None)) or _text(getattr(error, "constraint_name", None)),
    )


def find_missing_object(error: BaseException) -> str | None:
    """Return the message of an error, or of one of its causes, about an object that does not exist, or None.

    The text has no SQL and no values, unlike that of SQLAlchemy's errors.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        server = server_error(current)
        # SQLAlchemy's errors of asyncpg have the code without the message, which is in the cause.
        if server.sqlstate in _MISSING_OBJECT and server.message is not None:
            return f"{type(current).__name__}: {server.message} (SQLSTATE {server.sqlstate})"
        if isinstance(current, NoSuchTableError):
            return f"{type(current).__name__}: {current}"
        current = current.__cause__ or current.__context__
    return None


def text_without_values(error: BaseException) -> str:
    """Return the text of any error up to the SQL, the parameters and the row that may be in it."""
    return _VALUES.split(str(error), maxsplit=1)[0]


def is_drivers(error: BaseException) -> bool:
    """Return whether a driver raised the error, and not SQLAlchemy or a revision."""
    return hasattr(error, "pgcode") or hasattr(error, "sqlstate") or server_error(error).sqlstate is not None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
