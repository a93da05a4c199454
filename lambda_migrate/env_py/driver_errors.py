"""Returns PostgreSQL's fields of an error, for every driver.

A driver's error here is one of psycopg2, psycopg, asyncpg or pg8000. psycopg2 and psycopg have the server's fields in
``diag``, asyncpg on the error, and pg8000 in a dictionary with the letters of the protocol (PostgreSQL's manual,
"Error and Notice Message Fields").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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


def is_drivers(error: BaseException) -> bool:
    """Return whether a driver raised the error, and not SQLAlchemy or a revision."""
    return hasattr(error, "pgcode") or hasattr(error, "sqlstate") or server_error(error).sqlstate is not None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
